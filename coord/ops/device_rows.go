package ops

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// deviceRows holds the rows of all devices while somebody looks at lists of them: a page
// that is open asks again at every change, and does not have the database read all of them
// as often. Those that were written since the last list are read for the next one. They are
// forgotten when nobody has asked for a while.
type deviceRows struct {
	mu   sync.Mutex // guards the following
	held *heldRows  // nil for none
	used bool       // since the last call of forget
	asks bool       // somebody has asked since they were last forgotten: what is written is noted
	n    uint64     // grows with each commit that wrote rows while asks
	// written has what was written after held, and when; beyond maxWritten that is
	// forgotten, and known again from lost on.
	written map[store.Rows]uint64
	lost    uint64
}

// maxWritten bounds deviceRows.written: 1 MB. Where more was written between two lists, one
// query for all costs less.
const maxWritten = 1 << 14

// heldRows are never changed.
type heldRows struct {
	n    uint64     // of deviceRows when they were read
	rows []*heldRow // by name
	// next is when the first certificate ends that was not read, the zero time for none:
	// see Service.asksIssued.
	next time.Time
}

// heldRow is one row, which is shared by all heldRows until it is written.
type heldRow struct {
	store.Node
	words atomic.Pointer[string] // see Service.wordsOf
}

// wrote notes rows that a commit wrote. It is called on the store's writer goroutine.
func (r *deviceRows) wrote(rows []store.Rows) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.asks {
		return
	}
	r.n++
	for _, w := range rows {
		r.written[w] = r.n
	}
	if len(r.written) > maxWritten {
		r.held, r.lost = nil, r.n
		clear(r.written)
	}
}

// since begins to look: it returns the rows held, and what was written since.
func (r *deviceRows) since() (held *heldRows, written []store.Rows, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = true
	if !r.asks {
		r.asks, r.written = true, map[store.Rows]uint64{}
	}
	if r.held != nil {
		for w, n := range r.written {
			if n > r.held.n {
				written = append(written, w)
			}
		}
	}
	return r.held, written, r.n
}

// hold keeps rows for others, unless newer ones are held, or it is not known what was
// written since.
func (r *deviceRows) hold(h *heldRows) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.asks || h.n < r.lost || r.held != nil && h.n < r.held.n {
		return
	}
	r.held = h
	for w, n := range r.written {
		if n <= h.n {
			delete(r.written, w)
		}
	}
}

// forget is called once a minute.
func (r *deviceRows) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.used {
		r.held, r.written, r.asks = nil, nil, false
		r.n++ // nobody notes what is written from here on
		r.lost = r.n
	}
	r.used = false
}

// deviceRows returns the rows of all devices, by name; they are not to be changed. What was
// written before the call is in them. Nobody waits for another one who reads them.
func (s *Service) deviceRows(ctx context.Context) (*heldRows, error) {
	held, written, n := s.lists.since()
	ending := s.asksIssued()
	if held != nil && len(written) == 0 && (held.next.IsZero() || !held.next.Before(ending)) {
		return held, nil
	}
	fresh := &heldRows{n: n}
	err := s.store.Read(ctx, func(r *store.Reader) (err error) {
		if held != nil {
			if again := held.ofRows(written, ending); len(again) <= len(held.rows)/4 {
				fresh.rows, err = s.readAgain(r, held, again, ending)
				return err
			}
		}
		return r.EachListed(s.network, store.NodePage{Ending: ending}, func(n store.Node) error {
			fresh.rows = append(fresh.rows, &heldRow{Node: n})
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	for _, row := range fresh.rows {
		if len(row.Certificate) == 0 && (fresh.next.IsZero() || row.Expires.Before(fresh.next)) {
			fresh.next = row.Expires
		}
	}
	s.lists.hold(fresh)
	return fresh, nil
}

// ofRows returns the devices whose rows have to be read again: what was written, and those
// whose certificates are needed by now.
func (h *heldRows) ofRows(written []store.Rows, ending time.Time) map[cert.NodeID]struct{} {
	again, classes := map[cert.NodeID]struct{}{}, map[string]bool{}
	for _, w := range written {
		if w.Class != "" {
			classes[w.Class] = true
		} else {
			again[w.Node] = struct{}{}
		}
	}
	for _, row := range h.rows {
		if len(classes) > 0 && classes[row.Class] || len(row.Certificate) == 0 && row.Expires.Before(ending) {
			again[row.ID] = struct{}{}
		}
	}
	return again
}

// readAgain returns the rows held with some devices as they are now.
func (s *Service) readAgain(r *store.Reader, held *heldRows, again map[cert.NodeID]struct{}, ending time.Time) ([]*heldRow, error) {
	now := make([]*heldRow, 0, len(again))
	for id := range again {
		n, err := r.ListedNode(s.network, id, ending)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		now = append(now, &heldRow{Node: n})
	}
	slices.SortFunc(now, func(a, b *heldRow) int { return strings.Compare(a.Name, b.Name) })
	rows := make([]*heldRow, 0, len(held.rows)+len(now))
	for _, row := range held.rows {
		if _, ok := again[row.ID]; ok {
			continue
		}
		for len(now) > 0 && now[0].Name < row.Name {
			rows, now = append(rows, now[0]), now[1:]
		}
		rows = append(rows, row)
	}
	return append(rows, now...), nil
}

// wordsOf returns what a list shows of a row but its relay, as texts are compared.
func (s *Service) wordsOf(d *heldRow) string {
	if w := d.words.Load(); w != nil {
		return *w
	}
	list := []string{d.Name + "." + s.suffix, UnicodeName(d.Name) + "." + s.suffix, d.IPv4.String(), store.IPv6Of(s.ipv6, d.IPv4).String(), d.OS, SystemName(d.OS), d.User, d.Software}
	for _, t := range d.Tags {
		list = append(list, "#"+t)
	}
	words := folded(strings.Join(list, "\n"))
	d.words.Store(&words)
	return words
}

// sees returns whether an actor may see the device of a row, decided once for all of one
// owner with the same tags.
func sees(a Actor) func(*heldRow) bool {
	classes := map[string]bool{}
	return func(d *heldRow) bool {
		yes, ok := classes[d.Class]
		if !ok {
			yes = opDeviceRead.authorize(a, deviceTarget(d.Node)) == nil
			classes[d.Class] = yes
		}
		return yes
	}
}
