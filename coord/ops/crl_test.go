package ops

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

const days = 24 * time.Hour

func (s *site) list() *cert.CRL {
	s.t.Helper()
	crl, err := s.auth.Roots.VerifyCRL(s.CRL())
	if err != nil {
		s.t.Fatal(err)
	}
	return crl
}

func (s *site) delete(d *device) {
	s.t.Helper()
	if _, err := s.DeleteDevice(s.t.Context(), d.id); err != nil {
		s.t.Fatal(err)
	}
}

// upkept is a minute in the life of the server.
func (s *site) upkept() {
	s.t.Helper()
	if err := s.upkeep(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// renewed is a device's new certificate.
func (d *device) renewed(t *testing.T) []byte {
	t.Helper()
	csr, _ := cert.NewCSR(d.key)
	res, err := d.Renew(t.Context(), api.RenewRequest{Protocol: api.Protocol, CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	return res.Certificate
}

// judge wants a verdict on a certificate at a time, whatever time that is.
func (s *site) judge(what string, der []byte, at time.Time, want error) {
	s.t.Helper()
	if _, err := s.auth.Roots.VerifyNode(der, at, s.list()); !errors.Is(err, want) {
		s.t.Errorf("%s, at %v: %v, want %v", what, at.Format(time.DateOnly), err, want)
	}
}

// What has left the list because it ended is refused by the list's date: also by
// who takes the time for an earlier one. Nothing else is.
func TestListSaysWhatItDropped(t *testing.T) {
	s := openSite(t)
	laptop, gone, next := s.laptop("laptop"), s.camera("gone"), s.camera("next")
	begun := s.clock.Now()
	s.delete(gone)
	if l := s.list(); !l.Since.IsZero() || l.Len() != 1 {
		t.Errorf("nothing was dropped, but: since %v, %d entries", l.Since, l.Len())
	}
	for range 50 { // while it has not ended, it is in the list
		s.clock.Add(2*days - time.Hour)
		s.upkept()
		if n, _ := s.auth.Roots.VerifyNodeAnyTime(gone.res.Certificate); s.clock.Now().After(n.NotAfter) {
			break
		}
		s.judge("a deleted device", gone.res.Certificate, s.clock.Now(), cert.ErrRevoked)
	}
	s.clock.Add(5 * days)
	s.upkept()
	good := laptop.renewed(t)
	s.delete(next)
	l := s.list()
	node, _ := s.auth.Roots.VerifyNodeAnyTime(gone.res.Certificate)
	if l.Revoked(node.Serial) || !l.Since.After(node.NotAfter) || l.Since.After(s.clock.Now()) {
		t.Errorf("deleted until %v, listed %v; the list is complete since %v", node.NotAfter, l.Revoked(node.Serial), l.Since)
	}
	s.judge("one that was deleted long ago", gone.res.Certificate, begun.Add(time.Hour), cert.ErrExpired)
	s.judge("one that was renewed", good, s.clock.Now(), nil)
	if n := laptop.at(s); n.renewed(t) == nil {
		t.Error("it cannot be renewed") // with the certificate that has ended
	}
}

// A server whose clock stood in 2040 for a while signs a list then, and drops
// what had not ended. When its clock is right again, so is its list: those who
// were deleted stay so, and nobody else is refused.
func TestListOfWrongClock(t *testing.T) {
	s := openSite(t)
	laptop, stolen, lost := s.laptop("laptop"), s.camera("stolen"), s.camera("lost")
	s.delete(stolen)
	right := s.clock.Now()
	const years = 14 * 365 * days
	s.clock.Add(years)
	s.upkept()
	brief := s.camera("brief")
	s.delete(brief)
	s.clock.Add(100 * days) // its certificate ends, too
	s.upkept()
	s.delete(s.camera("last"))
	off := s.list()
	if !off.Since.After(right.Add(years)) {
		t.Fatalf("not what this test is about: the list is complete since %v", off.Since)
	}

	s.clock.Add(-years - 100*days + time.Minute)
	s.upkept()
	now := s.clock.Now()
	l := s.list()
	if l.Number <= off.Number || l.Since.After(now) {
		t.Errorf("list %d after %d says that it is complete since %v, which is now %v", l.Number, off.Number, l.Since, now)
	}
	s.judge("a good certificate", laptop.res.Certificate, now, nil)
	s.judge("one that was dropped too early", stolen.res.Certificate, now, cert.ErrRevoked)
	s.judge("one of a wrong time", brief.res.Certificate, right.Add(years), cert.ErrRevoked)
	if len(s.told.crls) == 0 || !bytes.Equal(s.told.crls[len(s.told.crls)-1], s.CRL()) {
		t.Error("relays do not know of it")
	}
	// The row of its certificate was not forgotten with those that had ended.
	s.delete(lost)
	s.judge("one that is deleted now", lost.res.Certificate, now, cert.ErrRevoked)
	number := s.list().Number
	s.upkept()
	if s.list().Number != number {
		t.Error("the list is signed anew each minute")
	}
}

// The list that a node brings to a restored server says what was dropped from
// it, and so does the next list of that server.
func TestRecallTakesTheDate(t *testing.T) {
	s := openSite(t)
	laptop, gone := s.laptop("laptop"), s.camera("gone")
	begun := s.clock.Now()
	backup := s.backedUp("correct horse battery staple")
	s.delete(gone)
	s.clock.Add(60 * days)
	other := s.camera("other")
	s.clock.Add(40 * days)
	s.upkept()
	s.delete(other)
	list := s.CRL()
	since := s.list().Since
	s.Close()
	if since.IsZero() {
		t.Fatal("nothing was dropped")
	}
	for name, at := range map[string]time.Time{"restored by a right clock": s.clock.Now(), "restored by a clock that is late": begun} {
		dir := filepath.Join(t.TempDir(), "data")
		if err := Restore(t.Context(), bytes.NewReader(backup), []byte("correct horse battery staple"), dir, at); err != nil {
			t.Fatal(err)
		}
		again := openSite(t, func(o *Options) { o.Data, o.Create = dir, false })
		again.clock.Add(101 * days)
		again.upkept()
		old, _ := again.auth.Roots.VerifyCRL(list)
		if again.list().Number >= old.Number {
			t.Fatalf("%s: the restored server's list is newer than the one out there", name)
		}
		if err := laptop.at(again).SendCRL(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		if l := again.list(); l.Number <= old.Number || l.Since.Before(since) || l.Since.After(again.clock.Now().Add(time.Second)) {
			t.Errorf("%s: list %d after %d is complete since %v, want %v", name, l.Number, old.Number, l.Since, since)
		}
		again.judge(name+": who left the list before", gone.res.Certificate, begun.Add(time.Hour), cert.ErrExpired)
		again.judge(name+": who is in it", other.res.Certificate, begun.Add(61*days), cert.ErrRevoked)
		again.Close()
	}
}

// A restored server that signs a list before nodes bring theirs loses nothing:
// neither with a deletion, nor because something ended, nor by the list of a node
// that was away and holds an older one than others.
func TestRecallAfterRestoredServerSigned(t *testing.T) {
	s := openSite(t)
	laptop, stolen, lost, next, ending := s.laptop("laptop"), s.camera("stolen"), s.camera("lost"), s.camera("next"), s.camera("ending")
	s.delete(ending)
	s.clock.Add(89 * days)
	laptop.renewed(t)
	for _, d := range []*device{stolen, lost, next} {
		d.res.Certificate = d.renewed(t)
	}
	backup := s.backedUp("correct horse battery staple")
	s.clock.Add(time.Minute)
	s.delete(stolen)
	first := s.CRL()
	s.clock.Add(2 * time.Hour)
	s.delete(lost)
	second := s.CRL()
	last := s.list().Number
	s.Close()
	at := s.clock.Now().Add(2 * days)

	restored := func(t *testing.T, check func(again *site, laptop *device)) {
		dir := filepath.Join(t.TempDir(), "data")
		if err := Restore(t.Context(), bytes.NewReader(backup), []byte("correct horse battery staple"), dir, at); err != nil {
			t.Fatal(err)
		}
		again := openSite(t, func(o *Options) { o.Data, o.Create, o.Now = dir, false, s.clock.Now })
		again.clock = s.clock
		defer again.Close()
		check(again, laptop.at(again))
	}
	bring := func(d *device, list []byte) {
		t.Helper()
		if err := d.SendCRL(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	s.clock.Add(at.Sub(s.clock.Now()))
	t.Run("a deletion", func(t *testing.T) {
		restored(t, func(again *site, laptop *device) {
			again.delete(next.at(again))
			if n := again.list().Number; n >= last {
				t.Errorf("list %d counts as newer than %d, which names more", n, last)
			}
			bring(laptop, second)
			if n := again.list().Number; n <= last {
				t.Errorf("list %d after %d", n, last)
			}
			for _, d := range []*device{stolen, lost, next} {
				again.judge("deleted before or after", d.res.Certificate, again.clock.Now(), cert.ErrRevoked)
			}
		})
	})
	t.Run("something ended", func(t *testing.T) {
		restored(t, func(again *site, laptop *device) {
			again.clock.Add(time.Minute)
			again.upkept()
			if n := again.list().Number; n >= last {
				t.Errorf("list %d counts as newer than %d, which names more", n, last)
			}
			bring(laptop, second)
			again.judge("deleted after the backup", lost.res.Certificate, again.clock.Now(), cert.ErrRevoked)
		})
	})
	t.Run("the older list first", func(t *testing.T) {
		restored(t, func(again *site, laptop *device) {
			bring(laptop, first)
			if n := again.list().Number; n >= last {
				t.Errorf("list %d counts as newer than %d, which names more", n, last)
			}
			bring(laptop, second)
			again.judge("deleted after the backup", lost.res.Certificate, again.clock.Now(), cert.ErrRevoked)
		})
	})
	t.Run("at the same time", func(t *testing.T) {
		restored(t, func(again *site, laptop *device) {
			bring(laptop, second)
			bring(laptop, first) // nothing is new in it
			number := again.list().Number
			bring(laptop, second)
			if again.list().Number != number {
				t.Error("a list with nothing new was signed for")
			}
		})
		restored(t, func(again *site, laptop *device) {
			bring(laptop, first)
			again.clock.Add(settling)
			again.delete(next.at(again)) // by the clock now
			if again.list().Number <= last {
				t.Fatal("not what this test is about")
			}
			bring(laptop, second) // was on its way
			again.judge("deleted after the backup", lost.res.Certificate, again.clock.Now(), cert.ErrRevoked)
			again.judge("deleted after the restore", next.res.Certificate, again.clock.Now(), cert.ErrRevoked)
		})
	})
	t.Run("nobody brings any", func(t *testing.T) {
		restored(t, func(again *site, laptop *device) {
			again.upkept() // so that there is no other reason to sign
			again.delete(next.at(again))
			again.Close()
			again = openSite(t, func(o *Options) { o.Data, o.Create, o.Now = again.data, false, s.clock.Now })
			again.clock = s.clock
			again.upkept()
			if n := again.list().Number; n >= last {
				t.Errorf("list %d a moment after the start", n)
			}
			again.clock.Add(settling)
			again.upkept()
			if n := again.list().Number; n <= last {
				t.Errorf("list %d does not reach who holds %d", n, last)
			}
			number := again.list().Number
			again.clock.Add(time.Hour)
			again.upkept()
			if again.list().Number != number {
				t.Error("the list is signed again and again")
			}
		})
	})
}

// After each thing that revokes or that ends what was revoked, and after a write that
// failed, the list names what the database says is revoked. A deletion after a
// deletion does not read all of that.
func TestListIsWhatIsRevoked(t *testing.T) {
	var fault faults
	s := openSite(t, func(o *Options) { o.BeforeStatement = fault.statement })
	follows := func(what string, cached bool) {
		t.Helper()
		var revoked []store.Revoked
		if err := s.store.Read(t.Context(), func(r *store.Reader) (err error) { revoked, err = r.Revoked(s.network, s.now()); return err }); err != nil {
			t.Fatal(err)
		}
		l := s.list()
		for _, v := range revoked {
			if !l.Revoked(v.Serial) {
				t.Errorf("%s: certificate %x is revoked and not in the list", what, v.Serial)
			}
			if l.Superseded(v.Serial) != v.Superseded {
				t.Errorf("%s: certificate %x is superseded: %v, and in the list: %v", what, v.Serial, v.Superseded, !v.Superseded)
			}
		}
		if l.Len() != len(revoked) || (s.Service.revocations != nil) != cached {
			t.Errorf("%s: %d in the list, %d revoked, known in memory: %v, want %v", what, l.Len(), len(revoked), s.Service.revocations != nil, cached)
		}
		s.agrees()
	}
	deleted := func(d *device) { // without reading all, when they are known
		t.Helper()
		known := s.Service.revocations != nil
		fault.seen = map[string]bool{}
		s.delete(d)
		for q := range fault.seen {
			if known && strings.Contains(q, "ORDER BY revoked_at") {
				t.Errorf("a deletion reads all that is revoked: %s", q)
			}
		}
		fault.seen = nil
	}
	var cams []*device
	for range 8 {
		cams = append(cams, s.camera("cam"))
	}
	follows("at the start", false)
	for i, d := range cams[:3] {
		deleted(d)
		follows(fmt.Sprint("deletion ", i), true)
	}
	s.clock.Add(nodeLife * 7 / 10)
	for _, d := range cams[3:] {
		d.res.Certificate = d.renewed(t)
	}
	deleted(cams[3]) // of two certificates
	follows("a renewed device", true)

	moved := s.camera("moved")
	if _, err := Do(t.Context(), s.Service, Root(), AssignDevice{ID: moved.id, Tags: &[]string{"hall"}}); err != nil {
		t.Fatal(err)
	}
	follows("a certificate is superseded", true)
	deleted(moved)
	follows("its device is deleted", true)

	for n := 1; ; n++ {
		fault = faults{in: n}
		_, err := s.DeleteDevice(t.Context(), cams[4].id)
		failed := fault.query != ""
		fault = faults{}
		if !failed {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		follows(fmt.Sprintf("statement %d failed", n), s.Service.revocations != nil)
		if s.Service.revocations == nil { // have the next one begin with all known
			s.delete(s.camera("other"))
		}
	}
	follows("after faults", true)

	s.clock.Add(nodeLife * 4 / 10) // the first ones have expired, and are not pruned
	deleted(cams[5])
	follows("some have expired", true)
	if err := s.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	follows("pruned", s.Service.revocations != nil)
	deleted(s.camera("late"))
	s.clock.Add(-nodeLife * 4 / 10) // they have not, after all
	s.delete(cams[6])
	follows("the clock was wrong", true)

	unknown := cert.NewSerial()
	newer, err := s.auth.Network.SignCRL(s.list().Number+1000, append(s.list().Serials(), unknown), time.Time{}, s.now())
	if err != nil {
		t.Fatal(err)
	}
	if err := cams[7].SendCRL(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	follows("a list was brought", true)
	if !s.list().Revoked(unknown) {
		t.Error("a certificate of the list that was brought is not in ours")
	}
	deleted(cams[7])
	follows("the last one", true)
}
