package ops

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"weft/coord/presence"
	"weft/coord/store"
)

// DeviceQuery selects devices. The zero value selects all, sorted by name.
type DeviceQuery struct {
	Filter string // for ParseDeviceFilter
	Text   string // words to search for, separated by spaces, without the grammar of Filter; at most 100 bytes
	State  string // "", "online" or "offline"
	KeyID  string // only devices that joined with this key
	Sort   string // one of DeviceSorts, "" for name; a minus before it reverses the order
	After  string // the cursor: DeviceList.Next of the page before
	Offset int    // how many devices to skip, instead of After
	Limit  int    // 0 for all
}

// DeviceSorts are the columns by which devices can be sorted. Devices with equal values are
// sorted by name, also in reverse order.
var DeviceSorts = []string{"name", "status", "tags", "address", "relay", "version", "owner", "system", "seen"}

// DeviceList is one page of devices.
type DeviceList struct {
	Devices []Device `json:"devices"`
	Next    string   `json:"next"`    // DeviceQuery.After for the next page, "" at the end
	Total   int      `json:"total"`   // devices that the query selects, on all pages
	All     int      `json:"all"`     // devices that the actor may see
	Online  int      `json:"online"`  // how many of All are online
	Unaware int      `json:"unaware"` // how many of All do not know all addresses of the server
}

// Devices lists the devices that the actor may see.
func (s *Service) Devices(ctx context.Context, a Actor, q DeviceQuery) (DeviceList, error) {
	var list DeviceList
	if err := opDeviceRead.asks(a); err != nil {
		return list, err
	}
	want, err := q.selection()
	if err != nil {
		return list, err
	}
	list.All, list.Online, list.Unaware = s.countFor(a)
	if want.every && len(a.Tags) == 0 && q.Limit > 0 && want.sort == "name" && !want.reverse {
		// The database can find the page without reading all devices.
		list.Devices = make([]Device, 0, min(q.Limit, list.All))
		list.Total = list.All
		page := store.NodePage{UserID: opDeviceRead.ownerSeen(a), Ending: s.asksIssued(), After: q.After, Offset: q.Offset, Limit: q.Limit + 1}
		err = s.store.Read(ctx, func(r *store.Reader) error {
			return r.EachListed(s.network, page, func(n store.Node) error {
				if len(list.Devices) == q.Limit {
					list.Next = list.Devices[q.Limit-1].Name
					return nil
				}
				list.Devices = append(list.Devices, s.View(n))
				return nil
			})
		})
	} else {
		var found []sorted
		if found, err = s.find(ctx, a, want); err == nil {
			list.Total = len(found)
			found = found[min(q.Offset, len(found)):]
			if q.After != "" {
				found = found[want.position(found, q.After):]
			}
			if q.Limit > 0 && len(found) > q.Limit {
				found = found[:q.Limit]
				list.Next = want.cursor(found[q.Limit-1])
			}
			list.Devices = make([]Device, 0, len(found))
			for _, f := range found {
				list.Devices = append(list.Devices, s.View(*f.node))
			}
		}
	}
	if err != nil {
		return list, err
	}
	s.lookAt(ctx, list.Devices)
	return list, nil
}

// DeviceIDs returns the ids of the devices that a query selects, in its order, from q.Offset
// on: at most q.Limit, and at most MaxDeviceChange. It ignores q.After. total is how many
// devices the query selects.
func (s *Service) DeviceIDs(ctx context.Context, a Actor, q DeviceQuery) (ids []string, total int, err error) {
	if err := opDeviceRead.asks(a); err != nil {
		return nil, 0, err
	}
	want, err := q.selection()
	if err != nil {
		return nil, 0, err
	}
	found, err := s.find(ctx, a, want)
	if err != nil {
		return nil, 0, err
	}
	total = len(found)
	limit := MaxDeviceChange
	if q.Limit > 0 {
		limit = min(q.Limit, limit)
	}
	found = found[min(q.Offset, len(found)):]
	for _, f := range found[:min(limit, len(found))] {
		ids = append(ids, f.node.ID.String())
	}
	return ids, total, nil
}

// EachDeviceOf calls f for all devices that a query selects, in its order. It ignores q.After,
// q.Offset and q.Limit. f may be slow: no transaction is open while it runs, and all rows are
// those at the time of the call.
func (s *Service) EachDeviceOf(ctx context.Context, a Actor, q DeviceQuery, f func(Device) error) error {
	if err := opDeviceRead.asks(a); err != nil {
		return err
	}
	want, err := q.selection()
	if err != nil {
		return err
	}
	found, err := s.find(ctx, a, want)
	if err != nil {
		return err
	}
	for _, d := range found {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f(s.View(*d.node)); err != nil {
			return err
		}
	}
	return nil
}

// selection is a checked DeviceQuery.
type selection struct {
	filter  DeviceFilter
	keyID   string
	every   bool // all devices are selected
	sort    string
	reverse bool
}

func (q DeviceQuery) selection() (w selection, err error) {
	if len(q.Text) > 100 {
		return w, Invalid("search for at most 100 bytes")
	}
	if w.filter, err = ParseDeviceFilter(q.Filter); err != nil {
		return w, err
	}
	for word := range strings.FieldsSeq(strings.ToValidUTF8(q.Text, "\uFFFD")) {
		w.filter.Terms = append(w.filter.Terms, FilterTerm{Value: word, word: folded(word)})
	}
	switch q.State {
	case "":
	case "online", "offline":
		w.filter.Terms = append(w.filter.Terms, FilterTerm{Key: "is", Value: q.State, any: []string{q.State}})
	default:
		return w, Invalid("state: want online or offline")
	}
	w.keyID, w.every = q.KeyID, len(w.filter.Terms) == 0 && q.KeyID == ""
	w.sort, w.reverse = strings.CutPrefix(cmp.Or(q.Sort, "name"), "-")
	if !slices.Contains(DeviceSorts, w.sort) {
		return w, Invalid("sort: %s: devices are sorted by %s", short(w.sort), orList(DeviceSorts))
	}
	return w, nil
}

// sorted is a device with its sort key.
type sorted struct {
	node *store.Node
	key  sortKey
}

// sortKey is the value by which devices are sorted: by n, then by text.
type sortKey struct {
	n    int64
	text string
}

// find returns the selected devices, sorted.
func (s *Service) find(ctx context.Context, a Actor, w selection) (found []sorted, err error) {
	held, err := s.deviceRows(ctx)
	if err != nil {
		return nil, err
	}
	now, seen := s.now(), sees(a)
	for _, row := range held.rows {
		if !seen(row) || w.keyID != "" && w.keyID != row.KeyID {
			continue
		}
		d := &listed{Node: &row.Node, s: s, now: now, row: row}
		if w.filter.fits(d) {
			found = append(found, sorted{&row.Node, w.keyOf(d)})
		}
	}
	switch {
	case w.sort != "name":
		slices.SortStableFunc(found, w.compare) // held.rows are sorted by name
	case w.reverse:
		slices.Reverse(found)
	}
	return found, nil
}

// compare compares two devices, except by name.
func (w selection) compare(a, b sorted) int { return w.compareKeys(a.key, b.key) }

func (w selection) compareKeys(a, b sortKey) int {
	c := cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(a.text, b.text))
	if w.reverse {
		return -c
	}
	return c
}

// cursor returns DeviceList.Next of a page that ends with last.
func (w selection) cursor(last sorted) string {
	if w.sort == "name" {
		return last.node.Name
	}
	return fmt.Sprintf("%d %s %s", last.key.n, last.node.Name, last.key.text)
}

// position returns the index in found of the first device after a cursor. The device that the
// cursor names may have been deleted.
func (w selection) position(found []sorted, cursor string) int {
	if w.sort == "name" {
		return countUntil(found, func(f sorted) bool {
			return w.reverse == (f.node.Name < cursor) && f.node.Name != cursor
		})
	}
	var n int64
	var name, text string
	if _, err := fmt.Sscanf(cursor, "%d %s", &n, &name); err == nil {
		_, text, _ = strings.Cut(cursor, " ")
		_, text, _ = strings.Cut(text, " ")
	}
	return countUntil(found, func(f sorted) bool {
		return cmp.Or(w.compareKeys(f.key, sortKey{n, text}), cmp.Compare(f.node.Name, name)) > 0
	})
}

func countUntil(list []sorted, after func(sorted) bool) int {
	if i := slices.IndexFunc(list, after); i >= 0 {
		return i
	}
	return len(list)
}

// maxSortText bounds the texts of sort keys, and thereby the length of cursors.
const maxSortText = 60

func sortText(s string) string {
	s = folded(strings.ToValidUTF8(s, "\uFFFD"))
	for i := range s {
		if i+utf8.UTFMax > maxSortText {
			return s[:i]
		}
	}
	return s
}

// keyOf returns the sort key of a device. Devices without a value come last.
func (w selection) keyOf(d *listed) sortKey {
	text := func(s string) sortKey {
		if s == "" {
			return sortKey{n: 1}
		}
		return sortKey{text: sortText(s)}
	}
	switch w.sort {
	case "status":
		return sortKey{n: int64(slices.IndexFunc([]string{"attention", "offline", "online", ""}, func(v string) bool { return v == "" || d.is(v) }))}
	case "tags":
		return text(strings.Join(ShownTags(d.Tags), " "))
	case "address":
		b := d.IPv4.As4()
		return sortKey{n: int64(b[0])<<24 | int64(b[1])<<16 | int64(b[2])<<8 | int64(b[3])}
	case "relay":
		return text(d.relay())
	case "version":
		return versionKey(d.Software)
	case "owner":
		return text(d.User)
	case "system":
		return text(SystemName(d.OS))
	case "seen": // latest first
		if age := d.age(); age != never && d.state().Online {
			return sortKey{n: math.MinInt64}
		}
		return sortKey{n: -unixOrZero(d.state().Since)}
	}
	return sortKey{} // sort by name only
}

// versionKey returns a sort key with which versions sort as by CompareVersions, unless a
// number has more than six digits.
func versionKey(version string) sortKey {
	numbers, pre := versionNumbers(version)
	var b strings.Builder
	for _, n := range numbers {
		fmt.Fprintf(&b, "%06d.", min(n, 999_999))
	}
	if len(numbers) > 0 && pre == "" {
		pre = "~" // sorts the release after its prereleases
	}
	return sortKey{text: sortText(b.String() + pre)}
}

// ShownTags returns the tags without "device", which all devices have that are not a person's
// computer, so that it tells nothing.
func ShownTags(tags []string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return t == "device" })
}

// listed is a device while it is filtered and sorted. Its presence is read when it is first
// needed.
type listed struct {
	*store.Node
	s       *Service
	now     time.Time
	row     *heldRow
	present presence.State
	asked   bool // present has been read
}

func (d *listed) state() presence.State {
	if !d.asked {
		d.present, d.asked = d.s.stateOf(d.ID, d.Seen), true
	}
	return d.present
}

// relay returns the name of the relay to which the device is connected, "" if not online.
func (d *listed) relay() string {
	if st := d.state(); st.Online {
		return d.s.relayLabel(st.Relay)
	}
	return ""
}

// age returns how long ago the device was last online: 0 if it is, never if it never was.
func (d *listed) age() time.Duration {
	switch st := d.state(); {
	case st.Online:
		return 0
	case st.Since.IsZero():
		return never
	default:
		return max(0, d.now.Sub(st.Since))
	}
}

// is reports whether the device is in a state, one of FilterStates.
func (d *listed) is(state string) bool {
	switch state {
	case "online":
		return d.state().Online
	case "offline": // but not if that is uncertain (Device.Unknown)
		return !d.state().Online && !d.s.unsure(d.ID)
	case "attention":
		return d.s.attention(*d.Node) != ""
	case "expired":
		return d.s.attention(*d.Node) == NeedExpired
	case "pending":
		return d.s.index.behind(d.ID)
	case "unaware":
		return !d.s.index.knowsURLs(d.ID)
	case "ephemeral":
		return d.Ephemeral
	}
	return false
}

// has reports whether a folded word occurs in what a list shows of the device.
func (d *listed) has(word string) bool {
	return strings.Contains(d.s.wordsOf(d.row), word) || strings.Contains(folded(d.relay()), word)
}
