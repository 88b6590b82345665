package overlay_test

import (
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/overlay/status"
)

// A laptop that its person has not signed in for too long is cut from what it reaches, live
// flows included, and can be reached. It says why and what to do, and is what it was after
// the person has approved the code that it shows. Another laptop of the same person and a
// device with a tag notice nothing. How long the cut took is in the log.
func TestOverdueIsCut(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	w := newWorldOf(t, setup{now: now, site: newSite(t)})
	pi, laptop, other, cam := w.node("kitchen-pi", "device"), w.node("laptop"), w.node("other"), w.node("cam", "camera")
	pi.echo()
	laptop.echo()
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(ops.Do(t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: `{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`}))
	days := 10
	do(ops.Do(t.Context(), w.svc, ops.Root(), ops.SetSignIn{DeviceDays: &days}))
	follow := func(n *node) {
		t.Helper()
		eventually(t, 20*time.Second, "it has its config", func() bool { return n.Versions().Config == w.svc.Versions(n.id()).Config })
	}
	for _, n := range []*node{pi, laptop, other, cam} {
		follow(n)
	}
	if s := laptop.Status().Self.SignIn; s == nil || s.Soon || s.Overdue || cam.Status().Self.SignIn != nil {
		t.Errorf("%+v, %+v", s, cam.Status().Self.SignIn)
	}
	if err := laptop.Ask(t.Context(), "", "", func(status.Asked) { t.Error("it asks though nothing is due") }); err != nil {
		t.Error(err)
	}
	type conn interface {
		io.ReadWriteCloser
		SetDeadline(time.Time) error
	}
	dial := func(n *node, to string) conn {
		t.Helper()
		eventually(t, 20*time.Second, "a path there", func() bool { _, err := n.Resolve(t.Context(), to); return err == nil })
		c := n.dial("tcp4", to+":7")
		say(t, c, "before")
		return c.(conn)
	}
	echoes := func(c conn, wait time.Duration) bool {
		c.SetDeadline(time.Now().Add(wait))
		if _, err := io.WriteString(c, "x"); err != nil {
			return false
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err == nil
	}
	ahead.Store(int64(9*24*time.Hour + time.Hour))
	admin, err := w.svc.Login(t.Context(), "admin")
	do(nil, err)
	owner := ops.ConsoleActor(admin, netip.MustParseAddr("127.0.0.1"))
	approve := func(code string) {
		t.Helper()
		owner.SignedIn = now()
		do(ops.Do(t.Context(), w.svc, owner, ops.SignInDevice{Code: code}))
	}
	eventually(t, 20*time.Second, "the other one knows the time", func() bool {
		st, err := other.Look(t.Context(), "") // it asks the server
		return err == nil && st.Self.SignIn != nil && st.Self.SignIn.Soon
	})
	early := other.asksServer("", "")
	approve(soon(t, early.codes).Code)
	if err := soon(t, early.done); err != nil {
		t.Fatal(err)
	}
	hers, others, tagged := dial(laptop, "kitchen-pi"), dial(other, "kitchen-pi"), dial(cam, "kitchen-pi")
	id, self := laptop.id(), laptop.Status().Self
	start := time.Now()
	ahead.Store(int64(10*24*time.Hour + time.Hour))
	eventually(t, 20*time.Second, "the laptop is cut off", func() bool { return !echoes(hers, 200*time.Millisecond) })
	t.Logf("cut %s after that", time.Since(start).Round(time.Millisecond))
	if !echoes(tagged, 20*time.Second) || !echoes(others, 20*time.Second) {
		t.Error("others are cut off")
	}
	dial(other, "laptop") // can be reached
	dial(cam, "laptop")
	follow(laptop)
	health := func() (codes []string) {
		for _, h := range laptop.Status().Health {
			if strings.HasPrefix(string(h.Code), "sign-in") && strings.Contains(h.Message, "weft up") {
				codes = append(codes, string(h.Code))
			}
		}
		return codes
	}
	if s := laptop.Status().Self.SignIn; s == nil || !s.Overdue || strings.Join(health(), " ") != "sign-in-overdue" {
		t.Errorf("%+v, %v", s, laptop.Status().Health)
	}
	if _, err := laptop.Ping(t.Context(), "kitchen-pi"); kindOf(err) != status.KindDenied || !strings.Contains(err.Error(), "weft up") {
		t.Errorf("ping: %v", err)
	}
	if _, err := laptop.Dial(t.Context(), "tcp", "kitchen-pi:7"); kindOf(err) != status.KindDenied || !strings.Contains(err.Error(), "signed in again") {
		t.Errorf("dial: %v", err)
	}

	for _, restarted := range []bool{false, true} {
		a := laptop.asksServer("", "")
		shown := soon(t, a.codes)
		if !shown.SignIn || !strings.HasSuffix(shown.URL, "/approve?code="+shown.Code) {
			t.Errorf("%+v", shown)
		}
		if !restarted {
			do(ops.Do(t.Context(), w.svc, ops.Root(), ops.DenyRequest{Word: shown.Code}))
			if err := soon(t, a.done); kindOf(err) != status.KindDenied || !laptop.Status().Self.SignIn.Overdue {
				t.Errorf("denied: %v", err)
			}
			laptop.restart() // it is as overdue afterwards
			if s := laptop.Status().Self.SignIn; s == nil || !s.Overdue {
				t.Errorf("restarted: %+v", s)
			}
			continue
		}
		approve(shown.Code)
		if err := soon(t, a.done); err != nil {
			t.Fatal(err)
		}
	}
	s := laptop.Status()
	if s.Self.SignIn == nil || s.Self.SignIn.Overdue || s.Self.SignIn.Soon || len(health()) > 0 {
		t.Errorf("%+v, %v", s.Self.SignIn, s.Health)
	}
	if laptop.id() != id || s.Self.IPv4 != self.IPv4 || s.Self.Name != self.Name || !s.Self.CertificateExpires.Equal(*self.CertificateExpires) {
		t.Errorf("it is another one: %+v, before %+v", s.Self, self)
	}
	follow(pi)
	dial(laptop, "kitchen-pi")
}
