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

// deviceRows caches the rows of all devices while lists of devices are in use: an open page
// asks again at every change, and would make the database read all rows each time. For the next
// list only the rows are read again that were written since. The cache is dropped when no list
// was asked for between two calls of forget.
type deviceRows struct {
	mu   sync.Mutex // guards the following
	held *heldRows  // nil for none
	used bool       // a list was asked for since the last call of forget
	asks bool       // lists are in use, so written is kept
	n    uint64     // grows with each commit that writes rows while asks is set
	// written maps the rows that were written after held was read to the value of n at that
	// commit. If there are more than maxWritten they are dropped, and lost is the n from which
	// on written is complete.
	written map[store.Rows]uint64
	lost    uint64
}

// maxWritten bounds deviceRows.written to about 1 MB. If more rows were written between two
// lists, reading all rows costs less than reading these one by one.
const maxWritten = 1 << 14

// heldRows is a list of all rows. It is immutable.
type heldRows struct {
	n    uint64     // deviceRows.n when the rows were read
	rows []*heldRow // sorted by name
	// next is the first end of a certificate that was not read with its row, the zero time for
	// none. When Service.asksIssued passes it, that certificate has to be read.
	next time.Time
}

// heldRow is one row. Successive heldRows share it until the row is written.
type heldRow struct {
	store.Node
	words atomic.Pointer[string] // see Service.wordsOf
}

// wrote is told which rows a commit wrote. The store's writer goroutine calls it.
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

// since returns the cached rows, nil for none, the rows that were written since they were read,
// and the present n.
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

// hold puts rows into the cache, unless it has newer ones, or does not know which rows were
// written since they were read.
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

// forget drops the cache if it was not used since the last call. It is called once a minute.
func (r *deviceRows) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.used {
		r.held, r.written, r.asks = nil, nil, false
		r.n++ // commits are not tracked from here on, so rows read before must not be held
		r.lost = r.n
	}
	r.used = false
}

// deviceRows returns the rows of all devices, sorted by name, as of the call or later. The
// caller must not change them. Concurrent callers each read the rows and do not wait for each
// other.
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

// ofRows returns the devices whose rows have to be read again: rows that were written, and
// rows that need their certificates because these end before ending.
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

// readAgain returns a copy of the held rows in which some devices have been read again.
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

// wordsOf returns the folded texts that a list shows of a row, except for its relay.
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

// sees returns a function that reports whether an actor may see the device of a row. It decides
// once for all devices with the same owner and tags. Only one goroutine may call it.
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
