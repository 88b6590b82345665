package ops

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// cargo is what a device says with its next request, and whether the server took it.
type cargo struct {
	list  []api.Introduction
	taken bool
}

func (c *cargo) Carry() (string, func()) {
	value, _ := api.EncodeIntroductions(c.list)
	return value, func() { c.taken = true }
}

// report has a device say something with a request that it makes anyway, and returns
// whether the server took it.
func (s *site) report(d *device, list ...api.Introduction) bool {
	s.t.Helper()
	c := &cargo{list: list}
	d.Cargo = c
	defer func() { d.Cargo = nil }()
	if _, err := d.Config(s.t.Context(), api.Version{}); err != nil {
		s.t.Fatal(err)
	}
	s.clock.Add(reportSpacing)
	return c.taken
}

// claimed returns what devices claim, one line each.
func (s *site) claimed(q IntroductionQuery) (lines []string) {
	s.t.Helper()
	list, err := s.Introductions(s.t.Context(), Root(), q)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, i := range list.Introductions {
		way := "out"
		if i.Inbound {
			way = "in"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s of %s x%d [%s] [%s]", i.DeviceName, way, i.Name, i.User, i.Count, strings.Trim(i.Paths+", "+i.Suites, ", "), i.Doubts))
	}
	slices.Sort(lines)
	return lines
}

func (s *site) configure(c EditAudit) AuditSettings {
	s.t.Helper()
	set, err := Do(s.t.Context(), s.Service, Root(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	return set
}

// Devices with an opted-in tag report introductions, and nobody else does. What the
// server knows against a claim stands beside it, and none of it is in the audit.
func TestIntroductions(t *testing.T) {
	s := openSite(t)
	gate := s.joined(CreateKey{Tags: []string{"camera", "gate"}}, "gate")
	other := s.joined(CreateKey{Tags: []string{"sensor"}}, "other")
	laptop, gone := s.laptop("laptop"), s.laptop("gone")
	bob, err := s.CreateUser(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	far := s.joined(CreateKey{UserID: bob.ID}, "far")
	said := func(peer cert.NodeID, name, user string, inbound bool, count int) api.Introduction {
		at := s.clock.Now().Unix()
		return api.Introduction{Peer: peer.String(), Name: name, User: user, Inbound: inbound, Count: count, First: at, Last: at, Paths: "relay nonsense wireguard direct aes"}
	}
	if config, err := gate.Config(t.Context(), api.Version{}); err != nil || config.Introductions {
		t.Fatalf("it reports unasked: %v", err)
	}
	if s.report(gate, said(laptop.id, "laptop", "admin", true, 1)) || len(s.claimed(IntroductionQuery{})) > 0 {
		t.Error("a claim was taken that nobody wants")
	}
	if set := s.configure(EditAudit{Report: []string{"tag:camera", "door"}, NoReport: []string{"door"}}); !slices.Equal(set.Introductions, []string{"camera"}) {
		t.Errorf("%+v", set)
	}
	if config, err := gate.Config(t.Context(), gate.res.Config.Version); err != nil || config == nil || !config.Introductions {
		t.Fatalf("the device is not told: %+v, %v", config, err)
	}
	if config, err := other.Config(t.Context(), api.Version{}); err != nil || config.Introductions {
		t.Fatalf("another tag's device is told: %v", err)
	}
	if _, err := s.DeleteDevice(t.Context(), gone.id); err != nil {
		t.Fatal(err)
	}
	_, last := s.records(0)
	odd := said(laptop.id, "laptop", "admin", false, 1)
	odd.First, odd.Last = s.clock.Now().Add(-40*24*time.Hour).Unix(), s.clock.Now().Add(time.Hour).Unix()
	list := []api.Introduction{
		said(laptop.id, "laptop", "admin", true, 3), said(laptop.id, "lap-top", "admin", false, 1), said(far.id, "far", "bob", true, 2), said(gone.id, "gone", "admin", true, 1),
		said(cert.NodeID{9}, "nobody", "eve", true, 1), said(gate.id, "gate", "admin", true, 7), said(cert.NodeID{}, "zero", "x", true, 7),
		{Peer: "x", Count: 1, First: 1, Last: 1}, {Count: 12, Inbound: true, First: s.clock.Now().Unix() - 7200, Last: s.clock.Now().Unix()},
	}
	want := []string{
		"gate in  of  x12 [] []",
		"gate in far of bob x2 [direct relay, aes wireguard] [unreachable]",
		"gate in gone of admin x1 [direct relay, aes wireguard] [deleted]",
		"gate in laptop of admin x3 [direct relay, aes wireguard] []",
		"gate in nobody of eve x1 [direct relay, aes wireguard] [unknown]",
		"gate out lap-top of admin x1 [direct relay, aes wireguard] [name]",
	}
	for range 2 { // saying it twice changes nothing
		if !s.report(gate, list...) {
			t.Fatal("it was not taken")
		}
		if got := s.claimed(IntroductionQuery{}); !slices.Equal(got, want) {
			t.Errorf("claimed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	more := list[0]
	more.Count, more.Last = 5, more.Last+1
	less := list[2]
	less.Count = 1
	if !s.report(gate, more, less, odd) {
		t.Fatal("it was not taken")
	}
	got := s.claimed(IntroductionQuery{})
	if !slices.Contains(got, "gate in laptop of admin x5 [direct relay, aes wireguard] []") || !slices.Contains(got, want[1]) || !slices.Contains(got, "gate out laptop of admin x1 [direct relay, aes wireguard] [time]") {
		t.Errorf("%q", got)
	}
	if s.report(other, list[0]) || slices.ContainsFunc(s.claimed(IntroductionQuery{}), func(l string) bool { return strings.HasPrefix(l, "other") }) {
		t.Error("a device of another tag reports")
	}
	if lines, _ := s.records(last); len(lines) > 0 {
		t.Errorf("recorded as facts: %q", lines)
	}
	if _, report := s.audited("", nil); report.Fault != nil {
		t.Error(report.Fault)
	}

	// Who may read them, and how they are found.
	for _, a := range []Actor{{}, {Role: RoleOperator, Via: ViaAPI}, {Role: RoleMember, Via: ViaConsole}, {Role: RoleOwner, Tags: []string{"camera"}, Via: ViaAPI}, System()} {
		if _, err := s.Introductions(t.Context(), a, IntroductionQuery{}); !errors.Is(err, ErrForbidden) {
			t.Errorf("%+v reads them: %v", a, err)
		}
		if _, err := Do(t.Context(), s.Service, a, EditAudit{Report: []string{"x"}}); !errors.Is(err, ErrForbidden) {
			t.Errorf("%+v sets it: %v", a, err)
		}
	}
	if _, err := Do(t.Context(), s.Service, Actor{Role: RoleAdmin, Via: ViaAPI}, EditAudit{}); !errors.Is(err, ErrForbidden) {
		t.Errorf("an admin sets it: %v", err)
	}
	all := s.claimed(IntroductionQuery{})
	var paged []string
	q := IntroductionQuery{Device: "gate", Limit: 1}
	for {
		page, err := s.Introductions(t.Context(), Root(), q)
		if err != nil {
			t.Fatal(err)
		}
		paged = append(paged, s.claimed(q)...)
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	if slices.Sort(paged); !slices.Equal(paged, all) {
		t.Errorf("page by page\n%s\nat once\n%s", strings.Join(paged, "\n"), strings.Join(all, "\n"))
	}
	if _, err := s.Introductions(t.Context(), Root(), IntroductionQuery{Device: "laptop", After: "1.x.y.in"}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if got := s.claimed(IntroductionQuery{Since: s.clock.Now().Add(2 * time.Hour)}); len(got) > 0 {
		t.Errorf("%q", got)
	}
	if _, err := s.DeleteDevice(t.Context(), gate.id); err != nil {
		t.Fatal(err)
	}
	if got := s.claimed(IntroductionQuery{Device: gate.id.String()}); len(got) != len(all) {
		t.Errorf("of a deleted device: %q", got)
	}
}

// A hostile device can neither fill the table nor keep a request from being answered.
func TestIntroductionsFlood(t *testing.T) {
	s := openSite(t)
	s.configure(EditAudit{Report: []string{"device"}})
	pi := s.camera("pi")
	at := s.clock.Now().Unix()
	many := func(from, n int) (list []api.Introduction) {
		for i := range n {
			id := cert.NodeID{1, byte((from + i) >> 8), byte(from + i)}
			list = append(list, api.Introduction{Peer: id.String(), Name: "x\x1b[2J", User: strings.Repeat("x", 255), Count: 1 << 40, First: at, Last: at})
		}
		return list
	}
	for i := 0; i < 2*dailyIntroductions; i += 25 {
		if !s.report(pi, many(i, 25)...) {
			t.Fatal("it was not taken")
		}
	}
	rows, full := 0, int64(0)
	err := s.store.Read(t.Context(), func(r *store.Reader) error {
		return r.EachIntroduction(s.network, store.IntroductionFilter{}, func(i store.Introduction) error {
			rows++
			if i.Doubts == DoubtFull {
				full += i.Count
			} else if i.Name != "" || i.User != "" || i.Count != maxClaim {
				t.Errorf("%+v", i)
			}
			return nil
		})
	})
	if err != nil || rows != dailyIntroductions+1 || full < dailyIntroductions {
		t.Errorf("%d rows, %d counted together, %v", rows, full, err)
	}
	s.clock.Add(24 * time.Hour)
	at = s.clock.Now().Unix()
	if !s.report(pi, many(0, 5)...) || len(s.claimed(IntroductionQuery{Since: s.clock.Now()})) != 5 {
		t.Error("the next day nothing is taken")
	}
	// Too soon, or nothing that can be read: the request is answered all the same.
	c := &cargo{list: many(50, 1)}
	pi.Cargo = c
	for range 2 {
		c.taken = false
		if _, err := pi.Config(t.Context(), api.Version{}); err != nil {
			t.Fatal(err)
		}
	}
	if c.taken {
		t.Error("two reports at once were taken")
	}
	for _, value := range []string{"x", "W10", strings.Repeat("A", 20_000), "W3sicGVlciI6IiJ9XQ", "bnVsbA", "eyJhIjoxfQ"} {
		s.clock.Add(reportSpacing)
		r := httptest.NewRequest(http.MethodGet, "/v1/config", nil)
		r.Header.Set(api.IntroductionsHeader, value)
		res, err := (&direct{api: s.API(), leaf: func() *x509.Certificate { return pi.shown }}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		if res.StatusCode != http.StatusOK || res.Header.Get(api.IntroductionsHeader) != "" {
			t.Errorf("%.20q: %d, %v", value, res.StatusCode, res.Header)
		}
	}
	// A disk that is full, likewise.
	fail := false
	again := openSite(t, func(o *Options) {
		o.BeforeCommit = func() error {
			if fail {
				return store.ErrDiskFull
			}
			return nil
		}
	})
	again.configure(EditAudit{Report: []string{"device"}})
	gate := again.camera("gate")
	fail = true
	if again.report(gate, many(0, 1)...) || len(again.claimed(IntroductionQuery{})) > 0 {
		t.Error("it was taken, and is stored nowhere")
	}
	fail = false
	if !again.report(gate, many(0, 1)...) {
		t.Error("it was not taken")
	}
}

// Times at the end of the numbers are no times: they would be an answer that nobody can
// read, and hide what all other devices claim.
func TestIntroductionsEndOfTime(t *testing.T) {
	s := openSite(t)
	s.configure(EditAudit{Report: []string{"device"}})
	pi := s.camera("pi")
	at := s.clock.Now().Unix()
	for _, last := range []int64{math.MaxInt64, math.MaxInt64 - 1<<36, 1 << 40, math.MaxInt64 / 2} {
		if !s.report(pi, api.Introduction{Count: 1, First: at, Last: last}, api.Introduction{Peer: cert.NodeID{1, 2}.String(), Count: 1, First: last, Last: last}) {
			t.Fatal("it was not taken")
		}
	}
	list, err := s.Introductions(t.Context(), Root(), IntroductionQuery{})
	if err != nil || len(list.Introductions) == 0 {
		t.Fatal(list, err)
	}
	if _, err := json.Marshal(list); err != nil {
		t.Error(err)
	}
	for _, i := range list.Introductions {
		if i.Last.After(s.clock.Now()) || !strings.Contains(i.Doubts, DoubtTime) {
			t.Errorf("%+v", i)
		}
	}
}

// Claims race with each other, with lists, with what is set and with trims; nothing is
// lost that was taken.
func TestIntroductionsRace(t *testing.T) {
	s := openSite(t)
	s.configure(EditAudit{Report: []string{"device"}})
	var fleet []*device
	for i := range 8 {
		fleet = append(fleet, s.camera(fmt.Sprint("pi-", i)))
	}
	laptop := s.laptop("laptop")
	done := make(chan struct{})
	for _, d := range fleet {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 20 {
				at := s.clock.Now().Unix()
				c := &cargo{list: []api.Introduction{{Peer: laptop.id.String(), Name: "laptop", User: "admin", Inbound: true, Count: 1 + i, First: at, Last: at}}}
				d.Cargo = c
				if _, err := d.Config(context.Background(), api.Version{}); err != nil {
					t.Error(err)
				}
				s.clock.Add(time.Minute)
			}
		}()
	}
	go func() {
		defer func() { done <- struct{}{} }()
		for range 20 {
			if _, err := s.Introductions(context.Background(), Root(), IntroductionQuery{Limit: 3}); err != nil {
				t.Error(err)
			}
			if _, err := s.TrimAudit(context.Background(), Root(), TrimAudit{Before: s.clock.Now().Add(-48 * time.Hour)}); err != nil {
				t.Error(err)
			}
		}
	}()
	for range len(fleet) + 1 {
		<-done
	}
	if got := s.claimed(IntroductionQuery{}); len(got) < len(fleet) {
		t.Errorf("%q", got)
	}
}
