package ops

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Devices can report which devices introduced themselves to them, if the network's owner has
// switched that on for a tag. They send the reports in a header of requests that they make
// anyway. These reports are claims: a device can invent some and conceal others. So they are in
// a table of their own and not in the chain of the audit, and if the server knows facts that
// contradict a claim, it stores them with the claim as doubts. A device can report only for
// itself, because the key of the connection identifies it.

const (
	// dailyIntroductions bounds the rows that one device can add in a day.
	dailyIntroductions = 500
	// reportSpacing is the least time between two reports of one device.
	reportSpacing = 10 * time.Second
	// A claim may be about times from claimAge ago until claimSkew from now.
	claimAge  = 31 * 24 * time.Hour
	claimSkew = 10 * time.Minute
	maxClaim  = 1_000_000 // a larger Count is stored as this

	maxIntroductionsPage = 1000
)

// The words of store.Introduction.Doubts: what contradicted a claim when the server received
// it. The peer is the other device that the claim is about.
const (
	DoubtUnknown     = "unknown"     // the peer was never a device of this network
	DoubtDeleted     = "deleted"     // the peer was deleted, so its name and owner could not be compared
	DoubtUnreachable = "unreachable" // the policy lets neither device reach the other
	DoubtName        = "name"        // the peer has another name or owner
	DoubtTime        = "time"        // the claimed time is impossible, and replaced by the time when the server received the claim
	DoubtFull        = "full"        // the device reported more in a day than is stored
)

// claimedPaths are the kinds of path that a claim may name.
var claimedPaths = []string{"direct", "lane", "relay"}

// reports enforces reportSpacing. The zero value is usable.
type reports struct {
	mu   sync.Mutex // guards the following
	last map[cert.NodeID]time.Time
}

// take reports whether a device may report now.
func (r *reports) take(id cert.NodeID, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.last[id]; ok && now.Sub(at).Abs() < reportSpacing {
		return false
	}
	if r.last == nil || len(r.last) > 10_000 { // devices that are forgotten may report sooner, which does no harm
		r.last = map[cert.NodeID]time.Time{}
	}
	r.last[id] = now
	return true
}

// hearIntroductions stores the introductions that a device reports with a request, and sets the
// answer's header to how many it stored. Errors do not affect the request itself.
func (s *Service) hearIntroductions(ctx context.Context, rt route, c *caller, w http.ResponseWriter, r *http.Request) {
	value := r.Header.Get(api.IntroductionsHeader)
	if value == "" || rt.access != anyTimeNode || !s.reportsIntroductions(s.index.targetOf(c.id).tags) {
		return
	}
	list, err := api.ParseIntroductions(value)
	if err != nil {
		s.log.Debug("a device reports introductions that cannot be parsed", "id", c.id, "err", err)
		return
	}
	if !s.reports.take(c.id, s.now()) {
		return
	}
	stored, err := s.storeIntroductions(ctx, c.id, list)
	if err != nil {
		if !errors.Is(err, store.ErrClosed) && !isNotFound(err) {
			s.log.Error("store introductions", "id", c.id, "err", err)
		}
		return
	}
	w.Header().Set(api.IntroductionsHeader, strconv.Itoa(stored))
}

// storeIntroductions stores a device's claims with the doubts about them. It is not a Command,
// because claims do not go into the audit.
func (s *Service) storeIntroductions(ctx context.Context, id cert.NodeID, list []api.Introduction) (stored int, err error) {
	now := s.now().UTC().Truncate(time.Second)
	var rows []store.Introduction
	err = s.store.Read(ctx, func(r *store.Reader) error {
		self, err := r.Node(s.network, id)
		if err != nil {
			return err
		}
		for _, c := range list {
			row, ok, err := s.judge(r, self, c, now)
			if err != nil {
				return err
			}
			if ok {
				rows = append(rows, row)
			}
		}
		return nil
	})
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	err = s.store.Write(ctx, func(tx *store.Tx) (err error) {
		stored, err = tx.AddIntroductions(s.network, id, rows, dailyIntroductions, DoubtFull, now)
		return err
	})
	return stored, err
}

// judge makes a row of a claim by self, with the doubts about it. ok is false if the claim is
// not usable.
func (s *Service) judge(r *store.Reader, self store.Node, c api.Introduction, now time.Time) (row store.Introduction, ok bool, err error) {
	var doubts []string
	row = store.Introduction{
		Device: self.ID, DeviceName: self.Name, Inbound: c.Inbound, Count: int64(min(c.Count, maxClaim)),
		First: time.Unix(c.First, 0).UTC(), Last: time.Unix(c.Last, 0).UTC(),
	}
	several := c.Peer == ""
	// Compare unix seconds: subtracting times at the ends of the range would overflow.
	if c.First < now.Add(-claimAge).Unix() || c.Last > now.Add(claimSkew).Unix() || !several && c.First/3600 != c.Last/3600 {
		row.First, row.Last, doubts = now, now, append(doubts, DoubtTime)
	}
	row.Paths, row.Suites = wordsOf(c.Paths, claimedPaths), wordsOf(c.Paths, store.Suites)
	if several {
		row.Doubts = strings.Join(doubts, " ")
		return row, true, nil
	}
	if row.Peer, err = cert.ParseNodeID(c.Peer); err != nil || row.IsSeveral() || row.Peer == self.ID {
		return row, false, nil
	}
	if cert.ValidWord(c.Name) {
		row.Name = c.Name
	}
	if cert.ValidWord(c.User) {
		row.User = c.User
	}
	about, err := s.doubtsAbout(r, self.ID, row)
	row.Doubts = strings.Join(append(doubts, about...), " ")
	return row, true, err
}

// wordsOf returns those of words that occur in a text.
func wordsOf(text string, words []string) string {
	var had []string
	for _, w := range words {
		if slices.Contains(strings.Fields(text), w) {
			had = append(had, w)
		}
	}
	return strings.Join(had, " ")
}

// doubtsAbout compares the peer of a claim with what the server knows.
func (s *Service) doubtsAbout(r *store.Reader, self cert.NodeID, row store.Introduction) (doubts []string, err error) {
	peer, err := r.Node(s.network, row.Peer)
	if isNotFound(err) {
		removed, err := r.WasRemoved(s.network, row.Peer)
		if removed {
			return []string{DoubtDeleted}, err
		}
		return []string{DoubtUnknown}, err
	}
	if err != nil {
		return nil, err
	}
	if len(s.index.reached(self, []cert.NodeID{row.Peer})) == 0 && len(s.index.reached(row.Peer, []cert.NodeID{self})) == 0 {
		doubts = append(doubts, DoubtUnreachable)
	}
	known := row.Name == peer.Name || slices.ContainsFunc(s.index.aliasesOf(peer.ID), func(a api.Alias) bool { return a.Name == row.Name })
	if !known || row.User != peer.User {
		doubts = append(doubts, DoubtName)
	}
	return doubts, nil
}

// IntroductionQuery selects introductions. The zero value selects all.
type IntroductionQuery struct {
	Device string    // the device that reports: name, address or id
	Since  time.Time // selects introductions in hours that end after this
	After  string    // the cursor: IntroductionList.Next of the page before
	Limit  int       // at most 1000; 0 for 1000
}

// IntroductionList is one page of the claims of devices, the latest hour first.
type IntroductionList struct {
	Introductions []store.Introduction `json:"introductions"`
	Next          string               `json:"next"` // IntroductionQuery.After of the next page, "" at the end
}

// Introductions returns the introductions that devices reported. q.Device finds a deleted
// device only by its id.
func (s *Service) Introductions(ctx context.Context, a Actor, q IntroductionQuery) (IntroductionList, error) {
	list := IntroductionList{Introductions: []store.Introduction{}}
	if err := opAuditRead.readsAll(a); err != nil {
		return list, err
	}
	w := store.IntroductionFilter{Since: q.Since, Limit: maxIntroductionsPage}
	if q.Limit > 0 {
		w.Limit = min(w.Limit, q.Limit)
	}
	if q.Device != "" {
		n, err := s.FindDevice(ctx, q.Device)
		id, wrong := cert.ParseNodeID(strings.ToLower(q.Device))
		switch {
		case err == nil:
			id = n.ID
		case !isNotFound(err) || wrong != nil:
			return list, err
		}
		w.Device = &id
	}
	if q.After != "" {
		after, err := parseIntroductionCursor(q.After)
		if err != nil {
			return list, err
		}
		w.After = &after
	}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		return r.EachIntroduction(s.network, w, func(i store.Introduction) error {
			list.Introductions = append(list.Introductions, i)
			return ctx.Err()
		})
	})
	if n := len(list.Introductions); n == w.Limit {
		last := list.Introductions[n-1]
		way := "out"
		if last.Inbound {
			way = "in"
		}
		list.Next = strings.Join([]string{strconv.FormatInt(last.First.Unix(), 10), last.Device.String(), last.Peer.String(), way}, ".")
	}
	return list, err
}

func parseIntroductionCursor(text string) (i store.Introduction, err error) {
	wrong := Invalid("cursor: want next of the previous page")
	f := strings.Split(text, ".")
	if len(f) != 4 || f[3] != "in" && f[3] != "out" {
		return i, wrong
	}
	at, err := strconv.ParseInt(f[0], 10, 62)
	if err != nil || at < 1 {
		return i, wrong
	}
	if i.Device, err = cert.ParseNodeID(f[1]); err == nil {
		i.Peer, err = cert.ParseNodeID(f[2])
	}
	if err != nil {
		return i, wrong
	}
	i.First, i.Inbound = time.Unix(at, 0).UTC(), f[3] == "in"
	return i, nil
}
