package audit

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"hash"
	"iter"
	"time"

	"weft/overlay/cert"
)

// Row is a record as it is stored. Verify and Step do not change its byte slices, and keep
// them no longer than until the next row.
type Row struct {
	Seq    uint64
	Record []byte // its encoding
	Hash   []byte
	Columns
	// Odd names a column whose value has another type than the column, "" for none. SQLite
	// stores such values, and queries would not find them although they look right.
	Odd string
}

// Columns are the fields that are stored beside the encoding so that queries find a record.
type Columns struct {
	At                                 int64 // unix milliseconds
	Op, User, UserID, TargetID, Target string
}

// Columns returns the columns of the record, which repeat fields of the encoding.
func (r *Record) Columns() Columns {
	return Columns{At: r.At.UnixMilli(), Op: r.Op, User: r.User, UserID: r.UserID, TargetID: r.ID, Target: r.Name}
}

// Claims are the signed statements with which Verify compares the rows.
type Claims struct {
	Network    cert.NetworkID
	CAs        []*x509.Certificate // the one whose key gave the network its id, and trusted successors
	Checkpoint *Checkpoint         // nil if no records were removed
	Head       *Head               // nil for none, which is correct for an audit without records
	Outside    *Head               // a head that was saved elsewhere; nil for none
}

// Report is the result of Verify for an audit without faults.
type Report struct {
	// Numbers of the first and last record; Last is First-1 if there are no records.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Compared says that Claims.Outside was compared with the records. It cannot be if the
	// record that it names was removed.
	Compared bool `json:"compared"`
}

// Kind is a kind of fault.
type Kind string

// Kinds of faults.
const (
	Changed    Kind = "changed"
	Missing    Kind = "missing"
	Reordered  Kind = "reordered"
	Duplicated Kind = "duplicated"
	Cut        Kind = "cut"       // records at the end are missing
	Added      Kind = "added"     // there are records after the signed head or before the checkpoint
	Rewritten  Kind = "rewritten" // the chain is consistent, but not the one that was signed
	Unsigned   Kind = "unsigned"  // the head or checkpoint is not signed by the CA
)

// Fault is the first fault that was found in an audit.
type Fault struct {
	Kind Kind `json:"kind"`
	// Seq is the record where the fault shows. The changed record may be the one before: if
	// somebody changed a record together with its hash, the chain breaks at the next one.
	Seq uint64 `json:"seq"`
	Why string `json:"why"`
}

// Error implements error, in one plain line.
func (f *Fault) Error() string { return fmt.Sprintf("audit record %d: %s", f.Seq, f.Why) }

func fault(kind Kind, seq uint64, why string, args ...any) *Fault {
	return &Fault{Kind: kind, Seq: seq, Why: fmt.Sprintf(why, args...)}
}

// Verify reads all rows in their order and returns the first fault as a *Fault. Other errors
// mean that a row could not be read, or that c.Outside is not a head of this network. It holds
// one row at a time.
func Verify(rows iter.Seq2[Row, error], c Claims) (Report, error) {
	if c.Outside != nil {
		if err := c.Outside.Verify(c.Network, c.CAs); err != nil {
			return Report{}, fmt.Errorf("the head that was saved elsewhere: %w", err)
		}
	}
	if p := c.Checkpoint; p != nil {
		if err := p.Verify(c.Network, c.CAs); err != nil {
			return Report{}, fault(Unsigned, p.Seq, "the checkpoint up to which records were removed: %v", err)
		}
	}
	v := Follow(c.Network, c.Checkpoint)
	v.outside = c.Outside
	report := Report{First: v.start + 1, Last: v.start}
	var found *Fault
	if found = v.compare(); found != nil {
		return report, found
	}
	for row, err := range rows {
		if err != nil {
			return report, fmt.Errorf("read audit record after %d: %w", v.seq, err)
		}
		if found == nil {
			if found = v.step(row); found != nil && found.Kind != Missing {
				return report, found
			}
			report.Last = v.seq
		} else if row.Seq == found.Seq { // not missing, but further down
			return report, fault(Reordered, found.Seq, "it is stored after later records")
		}
	}
	if found == nil {
		found = v.end(c)
	}
	if found != nil {
		return report, found
	}
	report.Compared = c.Outside != nil && c.Outside.Seq >= v.start
	return report, nil
}

// Chain checks records one by one, in their order. Only one goroutine at a time may use it.
type Chain struct {
	network cert.NetworkID
	outside *Head
	start   uint64 // records up to here were removed
	seq     uint64 // the last record that was found correct
	hash    Hash   // of record seq
	digest  hash.Hash
	sum     []byte // buffer for the hash of the current row
}

// Follow returns a Chain that begins after the checkpoint of a network; nil stands for the
// beginning.
func Follow(network cert.NetworkID, c *Checkpoint) *Chain {
	v := &Chain{network: network, hash: Genesis(network), digest: sha256.New()}
	if c != nil {
		v.start, v.seq, v.hash = c.Seq, c.Seq, c.Hash
	}
	return v
}

// End returns an unsigned head of the last record that was checked.
func (v *Chain) End() Head { return Head{Network: v.network, Seq: v.seq, Hash: v.hash} }

// Step checks that row is the next record. The error is a *Fault.
func (v *Chain) Step(row Row) error {
	if f := v.step(row); f != nil {
		return f
	}
	return nil
}

func (v *Chain) step(row Row) *Fault {
	next := v.seq + 1
	switch {
	case row.Odd != "":
		return fault(Changed, next, "its column %s was changed: the value is of another type", row.Odd)
	case row.Seq > next+1:
		return fault(Missing, next, "it is missing, and so are the records up to %d", row.Seq-1)
	case row.Seq > next:
		return fault(Missing, next, "it is missing")
	case row.Seq <= v.start:
		return fault(Added, row.Seq, "it is there although the records up to %d were removed", v.start)
	case row.Seq < next:
		return fault(Duplicated, row.Seq, "it is there twice")
	}
	r, err := parse(row.Record)
	switch {
	case err != nil:
		return fault(Changed, next, "it was changed: %v", err)
	case r.seq < next:
		return fault(Duplicated, next, "record %d is in its place", r.seq)
	case r.seq > next:
		return fault(Reordered, next, "record %d is in its place", r.seq)
	}
	v.digest.Reset()
	v.digest.Write(v.hash[:])
	v.digest.Write(row.Record)
	v.sum = v.digest.Sum(v.sum[:0])
	if string(row.Hash) != string(v.sum) {
		return fault(Changed, next, "it was changed, or the record before it was changed together with its hash")
	}
	if r.at != row.At {
		return fault(Changed, next, "its column at was changed: it happened at %s", time.UnixMilli(r.at).UTC().Format(timeFormat))
	}
	for _, c := range [...]struct {
		name, column string
		text         []byte
	}{
		{"op", row.Op, r.text[textOp]}, {"user_name", row.User, r.text[textUser]}, {"user_id", row.UserID, r.text[textUserID]},
		{"target_id", row.TargetID, r.text[textID]}, {"target_name", row.Target, r.text[textName]},
	} {
		if c.column != string(c.text) {
			return fault(Changed, next, "its column %s was changed: the record says %q", c.name, c.text)
		}
	}
	v.seq, v.hash = next, Hash(v.sum)
	return v.compare()
}

// compare compares the chain so far with the head that was saved elsewhere.
func (v *Chain) compare() *Fault {
	if o := v.outside; o != nil && o.Seq == v.seq && o.Hash != v.hash {
		return fault(Rewritten, v.seq, "it does not match the head of %s that was saved elsewhere: this record, or one before it, was replaced and the chain made anew, or an older backup was restored", o.At.Format(timeFormat))
	}
	return nil
}

// end compares the whole chain with its heads.
func (v *Chain) end(c Claims) *Fault {
	h := c.Head
	if h == nil {
		if v.seq > 0 {
			return fault(Unsigned, v.seq, "there is no signed head")
		}
		h = &Head{Hash: v.hash}
	} else if err := h.Verify(c.Network, c.CAs); err != nil {
		return fault(Unsigned, h.Seq, "the head that names it as the last record: %v", err)
	}
	switch o := c.Outside; {
	case h.Seq > v.seq:
		return fault(Cut, v.seq+1, "it is missing, with all records up to %d: the end was cut off", h.Seq)
	case h.Seq < v.seq:
		return fault(Added, h.Seq+1, "it follows the record that the signed head names as the last")
	case h.Hash != v.hash:
		return fault(Rewritten, v.seq, "it does not match the signed head: a record was replaced and the chain made anew")
	case o != nil && o.Seq > v.seq:
		return fault(Cut, v.seq+1, "it is missing, with all records up to %d, the last one in the head that was saved elsewhere: the end was cut off, or an older backup was restored", o.Seq)
	}
	return nil
}
