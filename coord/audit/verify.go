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

// Row is a record as it is stored. The bytes are read until the next one is asked
// for, and not written.
type Row struct {
	Seq    uint64
	Record []byte // its encoding
	Hash   []byte
	Columns
	// Odd names a column whose value is not of the column's type, "" for none: a
	// database may compare such a value in another way than it looks.
	Odd string
}

// Columns are what is stored beside a record so that it can be found.
type Columns struct {
	At                                 int64 // unix milliseconds
	Op, User, UserID, TargetID, Target string
}

// Columns returns the columns of the record: nothing but what is in it.
func (r *Record) Columns() Columns {
	return Columns{At: r.At.UnixMilli(), Op: r.Op, User: r.User, UserID: r.UserID, TargetID: r.ID, Target: r.Name}
}

// Claims are the signed statements that rows are compared with.
type Claims struct {
	Network    cert.NetworkID
	CAs        []*x509.Certificate // the one that founded the network, and trusted successors
	Checkpoint *Checkpoint         // nil when nothing was removed
	Head       *Head               // nil when there is none: right for an audit without records
	Outside    *Head               // kept somewhere else; nil for none
}

// Report is the result of Verify for an audit without faults.
type Report struct {
	// Numbers of the first and last record; Last is First-1 when there are none.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Compared says that the head kept outside was compared: it cannot be when
	// what it speaks of was removed.
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
	Added      Kind = "added"     // there are records that nobody signed for
	Rewritten  Kind = "rewritten" // the chain holds together, and is another one
	Unsigned   Kind = "unsigned"  // the head or checkpoint is not the CA's
)

// Fault is the first thing that is wrong with an audit.
type Fault struct {
	Kind Kind `json:"kind"`
	// Seq is the row where it shows. A chain alone cannot tell a changed record
	// from an unchanged one behind one that was changed together with its hash.
	Seq uint64 `json:"seq"`
	Why string `json:"why"`
}

// Error implements error, in one plain line.
func (f *Fault) Error() string { return fmt.Sprintf("audit record %d: %s", f.Seq, f.Why) }

func fault(kind Kind, seq uint64, why string, args ...any) *Fault {
	return &Fault{Kind: kind, Seq: seq, Why: fmt.Sprintf(why, args...)}
}

// Verify reads all rows in their order and says what is wrong first, as a *Fault;
// other errors are of reading, or of a head kept outside that is not one of this
// network. It holds one row at a time.
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
		} else if row.Seq == found.Seq { // it is not missing, it stands further down
			return report, fault(Reordered, found.Seq, "it stands behind later ones")
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

// Chain is a chain that is followed record by record. It is for one goroutine.
type Chain struct {
	network cert.NetworkID
	outside *Head
	start   uint64 // records up to here were removed
	seq     uint64 // the last one that is right, and its hash
	hash    Hash
	digest  hash.Hash
	sum     []byte // of the row that is looked at
}

// Follow returns the chain of network from its checkpoint on, nil for none.
func Follow(network cert.NetworkID, c *Checkpoint) *Chain {
	v := &Chain{network: network, hash: Genesis(network), digest: sha256.New()}
	if c != nil {
		v.start, v.seq, v.hash = c.Seq, c.Seq, c.Hash
	}
	return v
}

// End returns the last record that was followed, as a head that is not signed.
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
		return fault(Missing, next, "it is missing, and so are those up to %d", row.Seq-1)
	case row.Seq > next:
		return fault(Missing, next, "it is missing")
	case row.Seq <= v.start:
		return fault(Added, row.Seq, "it is there although those up to %d were removed", v.start)
	case row.Seq < next:
		return fault(Duplicated, row.Seq, "it is there twice")
	}
	r, err := parse(row.Record)
	switch {
	case err != nil:
		return fault(Changed, next, "it was changed: %v", err)
	case r.seq < next:
		return fault(Duplicated, next, "record %d stands in its place", r.seq)
	case r.seq > next:
		return fault(Reordered, next, "record %d stands in its place", r.seq)
	}
	v.digest.Reset()
	v.digest.Write(v.hash[:])
	v.digest.Write(row.Record)
	v.sum = v.digest.Sum(v.sum[:0])
	if string(row.Hash) != string(v.sum) {
		return fault(Changed, next, "it was changed, or the one before it was together with its hash")
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

// compare compares the chain so far with the head that was kept outside.
func (v *Chain) compare() *Fault {
	if o := v.outside; o != nil && o.Seq == v.seq && o.Hash != v.hash {
		return fault(Rewritten, v.seq, "it is not what the head of %s says, which was kept outside: this record, or one before it, was replaced and the chain made anew, or an older backup was restored", o.At.Format(timeFormat))
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
		return fault(Unsigned, h.Seq, "the head that names it as the last one: %v", err)
	}
	switch o := c.Outside; {
	case h.Seq > v.seq:
		return fault(Cut, v.seq+1, "it is missing, with all up to %d: the end was cut off", h.Seq)
	case h.Seq < v.seq:
		return fault(Added, h.Seq+1, "it follows the last one that was signed for")
	case h.Hash != v.hash:
		return fault(Rewritten, v.seq, "it is not what the signed head says: a record was replaced and the chain made anew")
	case o != nil && o.Seq > v.seq:
		return fault(Cut, v.seq+1, "it is missing, with all up to %d that the head kept outside knows: the end was cut off, or an older backup was restored", o.Seq)
	}
	return nil
}
