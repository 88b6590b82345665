package ops

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// howMany is the size of a test: that of the environment for `scripts/test long`.
func howMany(variable string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return usual
}

// renewal asks for a renewal as the device would, without the wire.
func (s *site) renewal(d *device) store.Node {
	s.t.Helper()
	node, err := s.renew(context.Background(), &caller{id: d.id, key: &d.key.PublicKey}, api.RenewRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return node
}

// certificates counts those that a device was given and that were not pruned.
func (s *site) certificates(id cert.NodeID) (n int) {
	s.t.Helper()
	err := s.store.Read(context.Background(), func(r *store.Reader) (err error) {
		n, err = r.Unexpired(s.network, id, time.Unix(0, 0))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// listed returns the revocation list, as a node of any time reads it.
func (s *site) listed() *cert.CRL {
	s.t.Helper()
	crl, err := s.auth.Roots.VerifyCRL(s.CRL())
	if err != nil {
		s.t.Fatal(err)
	}
	return crl
}

func (s *site) refused(raw []byte) bool {
	s.t.Helper()
	node, err := cert.ParseNode(s.network, raw)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.listed().Revoked(node.Serial)
}

// A device that renews without end has one certificate, writes nothing, and is
// one entry of the revocation list when it is deleted.
func TestRenewalsOfOneDevice(t *testing.T) {
	s := openSite(t)
	d := s.camera("cam")
	before := s.Network().N
	for i := range howMany("WEFT_RENEWALS", 10_000) {
		if node := s.renewal(d); !bytes.Equal(node.Certificate, d.res.Certificate) {
			t.Fatalf("renewal %d gave another certificate", i)
		}
	}
	if n := s.certificates(d.id); n != 1 || s.Network().N != before {
		t.Errorf("%d certificates, change %d after %d", n, s.Network().N, before)
	}
	if _, err := s.DeleteDevice(t.Context(), d.id); err != nil {
		t.Fatal(err)
	}
	if crl := s.listed(); crl.Len() != 1 || !s.refused(d.res.Certificate) {
		t.Errorf("%d entries, refused: %v", crl.Len(), s.refused(d.res.Certificate))
	}
}

// The certificate in force is given until a third of its life is left, or
// something in it has changed, or it has expired.
func TestCertificateInForce(t *testing.T) {
	s := openSite(t)
	d := s.camera("cam")
	first := d.res.Certificate
	life := 90*day + clockSlack // from its beginning, which nodes count from
	s.clock.Add(life*64/100 - clockSlack)
	if node := s.renewal(d); !bytes.Equal(node.Certificate, first) {
		t.Error("another one at 64 % of its life")
	}
	s.clock.Add(life * 2 / 100)
	second := s.renewal(d)
	if bytes.Equal(second.Certificate, first) {
		t.Error("the same one at 66 % of its life, when nodes ask")
	}
	if node := s.renewal(d); !bytes.Equal(node.Certificate, second.Certificate) || s.certificates(d.id) != 2 {
		t.Errorf("a third one, of %d", s.certificates(d.id))
	}
	if _, err := s.RenameDevice(t.Context(), d.id, "door"); err != nil {
		t.Fatal(err)
	}
	if node := s.renewal(d); !bytes.Equal(node.Certificate, mustNode(t, s, d.id).Certificate) || s.certificates(d.id) != 3 {
		t.Errorf("a rename made %d certificates", s.certificates(d.id)-2)
	}
	s.clock.Add(200 * day)
	if node := s.renewal(d); !node.Expires.After(s.clock.Now()) {
		t.Error("the same one after it has expired")
	}
	// Of many that ask at once when it is due, one writes.
	s.clock.Add(60 * day)
	had := s.certificates(d.id)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { s.renewal(d) })
	}
	wg.Wait()
	if n := s.certificates(d.id); n != had+1 {
		t.Errorf("%d certificates for 50 who asked at once", n-had)
	}
	// A clock that was in the future gave what nobody believes yet.
	s.clock.Add(-300 * day)
	if node := s.renewal(d); !bytes.Equal(s.renewal(d).Certificate, node.Certificate) || s.certificates(d.id) != had+2 {
		t.Errorf("%d certificates after the clock went back", s.certificates(d.id)-had)
	}
}

// A node of edd3c3e asks by its own rule: after 66 % of a certificate's life,
// counted from its beginning or from when it came. It is never refused a new one,
// asks seldom, and always has one that holds.
func TestNodeRenewsByItsRule(t *testing.T) {
	for _, c := range []struct {
		ephemeral bool
		asks      int // in 180 days, at most
	}{{false, 3}, {true, 92}} {
		s := openSite(t)
		d := s.joined(CreateKey{Ephemeral: c.ephemeral}, "node")
		var renewed time.Time
		raw, asks := d.res.Certificate, 0
		var self *cert.Node
		var err error
		for end := s.clock.Now().Add(180 * day); s.clock.Now().Before(end); s.clock.Add(time.Minute) {
			now := s.clock.Now()
			if self == nil || !bytes.Equal(self.Raw, raw) {
				if self, err = s.auth.Roots.VerifyNodeAnyTime(raw); err != nil {
					t.Fatal(err)
				}
			}
			if now.Before(self.NotBefore) || !now.Before(self.NotAfter) {
				t.Fatal("its certificate does not hold")
			}
			share := func(from time.Time) time.Time { return from.Add(self.NotAfter.Sub(from) * renewAfter / 100) }
			due := share(self.NotBefore)
			if !renewed.IsZero() {
				for _, at := range []time.Time{share(renewed), renewed.Add(time.Second)} {
					if at.After(due) {
						due = at
					}
				}
			}
			if now.Before(due) {
				continue
			}
			node := s.renewal(d)
			if asks++; bytes.Equal(node.Certificate, raw) {
				t.Fatalf("asked in vain on day %d", 180-int(end.Sub(now).Hours())/24)
			}
			raw, renewed = node.Certificate, now
		}
		if asks == 0 || asks > c.asks {
			t.Errorf("ephemeral %v: asked %d times", c.ephemeral, asks)
		}
	}
}

// 20 renames a day and no more, whoever asks; and who does that every day has a
// bounded number of certificates, and goes on to have one that holds.
func TestRenamesOfOneDevice(t *testing.T) {
	s := openSite(t)
	d, old := s.camera("cam"), s.camera("old")
	rename := func() error {
		_, err := s.RenameDevice(t.Context(), d.id, fmt.Sprintf("cam-%d", s.Network().N))
		return err
	}
	for range maxRenames {
		s.clock.Add(time.Minute)
		if err := rename(); err != nil {
			t.Fatal(err)
		}
	}
	had := s.certificates(d.id)
	if err := rename(); !errors.Is(err, ErrTooOften) || !strings.Contains(err.Error(), "renamed 20 times within a day") || !strings.Contains(err.Error(), "after 2026-03-02 12:01 UTC") {
		t.Errorf("the next: %v", err)
	}
	if _, err := s.ReplaceDevice(t.Context(), old.id, d.id); !errors.Is(err, ErrTooOften) || !strings.Contains(err.Error(), "try again after") {
		t.Errorf("a replacement: %v", err)
	}
	if mustNode(t, s, old.id).Name != "old" || s.certificates(d.id) != had {
		t.Error("what was refused changed something")
	}
	// Another device is not concerned, and this one renews.
	if _, err := s.RenameDevice(t.Context(), old.id, "older"); err != nil {
		t.Error(err)
	}
	for range 100 {
		s.clock.Add(day + time.Minute)
		for range maxRenames {
			if err := rename(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		if node := s.renewal(d); node.Expires.Sub(s.clock.Now()) < day {
			t.Fatal("its certificate is about to expire")
		}
		if n := s.certificates(d.id); n > 150 {
			t.Fatalf("%d certificates", n)
		}
	}
}

// ephemerals joins n devices with the token, as of now, in one transaction.
func (s *site) ephemerals(tok cert.Token, keys []*caller) {
	s.t.Helper()
	err := s.store.Write(context.Background(), func(tx *store.Tx) error {
		for _, c := range keys {
			if _, err := s.joinIn(tx, c, &api.JoinRequest{Hostname: "ci"}, sha(tok.Secret)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func newCallers(t testing.TB, s *site, n int) (list []*caller) {
	t.Helper()
	for range n {
		key, err := cert.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		spki, _ := cert.SPKI(&key.PublicKey)
		list = append(list, &caller{id: cert.NodeIDOf(s.network, spki), key: &key.PublicKey, spki: spki})
	}
	return list
}

// Ephemeral devices that come and go, 1,111 a day with one token, which are
// 100,000 in 90 days: the list stays short, whoever goes is in it at once, and
// those that go together share it.
func TestEphemeralDevicesComeAndGo(t *testing.T) {
	s := openSite(t, func(o *Options) { o.Log = nil })
	tok := s.token(CreateKey{Reusable: true, Ephemeral: true, Life: 366 * day})
	total := howMany("WEFT_EPHEMERAL", 3_000)
	const batch = deleteBatch
	callers := newCallers(t, s, batch) // the same machines again, which costs less than new ones
	longest, rounds := 0, 0
	for made := 0; made < total; made += batch {
		s.ephemerals(tok, callers)
		last := mustNode(t, s, callers[batch-1].id).Certificate
		before := len(s.told.crls)
		s.clock.Add(ephemeralAfter + time.Second)
		if err := s.deleteEphemeral(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(s.told.crls) - before; n != 1 {
			t.Fatalf("%d lists were signed for %d that went", n, batch)
		}
		if !s.refused(last) {
			t.Fatal("one that went is not refused")
		}
		s.clock.Add(90 * day / 1000)
		if err := s.prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, len(s.CRL()))
		rounds++
	}
	if _, all := s.index.counts(""); all != 0 {
		t.Errorf("%d devices are left", all)
	}
	t.Logf("%d devices in %d days: the list had %d bytes at most, %d lists were signed", total, rounds*90/1000, longest, len(s.told.crls))
	if longest > 256<<10 || len(s.told.crls) > rounds+rounds*90/1000+1 {
		t.Errorf("%d bytes, %d lists in %d rounds", longest, len(s.told.crls), rounds)
	}
	s.clock.Add(4 * day)
	if err := s.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.scalar(`SELECT COUNT(*) FROM issued`); n != 0 || s.listed().Len() != 0 {
		t.Errorf("%d certificates and %d entries are left", n, s.listed().Len())
	}
}

// The list loses those that have expired even when nobody is deleted: after a
// day, or at once when they are many; and is not signed each minute for that.
func TestListShortens(t *testing.T) {
	s := openSite(t)
	prune := func() {
		t.Helper()
		if err := s.prune(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		s.clock.Add(time.Hour)
		d := s.camera("cam")
		if _, err := s.DeleteDevice(t.Context(), d.id); err != nil {
			t.Fatal(err)
		}
	}
	number, signed := s.listed().Number, len(s.told.crls)
	prune()
	if len(s.told.crls) != signed {
		t.Error("signed anew for nothing")
	}
	s.clock.Add(90*day - 30*time.Minute) // the first two have expired
	prune()
	crl := s.listed()
	if crl.Len() != 1 || crl.Number <= number || len(s.told.crls) != signed+1 {
		t.Errorf("%d entries, %d lists", crl.Len(), len(s.told.crls)-signed)
	}
	s.clock.Add(2 * time.Hour)
	prune()
	if s.listed().Len() != 1 {
		t.Error("signed twice in a day for one entry")
	}
	s.clock.Add(day)
	prune()
	if s.listed().Len() != 0 || len(s.told.crls) != signed+2 {
		t.Errorf("%d entries, %d lists", s.listed().Len(), len(s.told.crls)-signed)
	}
	s.revokedRows(2000, "", s.clock.Now().Add(time.Hour))
	s.sign()
	s.clock.Add(2 * time.Hour)
	prune()
	if s.listed().Len() != 0 {
		t.Error("2000 expired entries are still there")
	}
}

// revokedRows puts revoked certificates into the database, of devices that
// joined with a key.
func (s *site) revokedRows(n int, keyID string, expires time.Time) {
	s.t.Helper()
	err := s.store.Write(context.Background(), func(tx *store.Tx) error {
		for range n {
			if err := tx.AddRevoked(s.network, cert.NewSerial(), false, s.now(), expires); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if keyID != "" {
		s.scalar(`UPDATE issued SET key_id = $1 WHERE key_id = '' AND revoked_at = $2 AND expires_at = $3 RETURNING 1`, keyID, s.now().Unix(), expires.Unix())
	}
}

// scalar asks the database beside the store.
func (s *site) scalar(query string, args ...any) (n int) {
	s.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(s.data, "weft.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(query, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() { // all of them, or an UPDATE is undone
		if err := rows.Scan(&n); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *site) sign() {
	s.t.Helper()
	if err := s.store.Write(context.Background(), func(tx *store.Tx) error { tx.Note(newList{}); return nil }); err != nil {
		s.t.Fatal(err)
	}
}

// A fleet of 20,000 is deleted: nodes of edd3c3e, whose limit is cert.MaxCRL,
// read the list, and refuse all of it.
func TestFleetIsDeleted(t *testing.T) {
	n := howMany("WEFT_DELETED", 2_000)
	s := openSite(t, func(o *Options) { o.Log = nil })
	s.revokedRows(20_000-n, "", s.clock.Now().Add(90*day))
	preload(t, s, n)
	var all []store.Node
	s.EachDevice(t.Context(), "", func(n store.Node) error { all = append(all, n); return nil })
	for part := range slicesOf(all, 200) {
		err := s.store.Write(t.Context(), func(tx *store.Tx) error {
			for _, n := range part {
				if err := s.in(tx).delete(n); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	der := s.CRL()
	crl := s.listed()
	t.Logf("%d entries in %d bytes: %.1f each", crl.Len(), len(der), float64(len(der))/float64(crl.Len()))
	if len(all) != n || crl.Len() != 20_000 || len(der) > cert.MaxCRL/8*5 {
		t.Errorf("%d entries in %d bytes of %d devices", crl.Len(), len(der), len(all))
	}
	for _, n := range []store.Node{all[0], all[len(all)-1]} {
		if !s.refused(n.Certificate) {
			t.Errorf("%s is not refused", n.Name)
		}
	}
	if r := s.Revocations(); r.Left != 0 || r.Entries != 20_000 {
		t.Errorf("%+v", r)
	}
}

func slicesOf[T any](list []T, n int) func(func([]T) bool) {
	return func(yield func([]T) bool) {
		for len(list) > 0 && yield(list[:min(n, len(list))]) {
			list = list[min(n, len(list)):]
		}
	}
}

// More is revoked than a list can hold. It stays one that nodes read, with the
// device that was deleted last; the relay refuses all of them; none can join;
// devices renew, for a shorter time; it is said in the log, in doctor's facts and
// in the console; and it all ends by itself.
func TestListIsFull(t *testing.T) {
	s := openSite(t)
	s.revokedRows(17_000, "", s.clock.Now().Add(80*day))
	s.sign()
	d, tok := s.camera("cam"), s.token(CreateKey{})
	if n := len(s.CRL()); n > halfList || strings.Contains(s.log.String(), "half full") {
		t.Fatalf("%d bytes", n)
	}
	s.clock.Add(time.Minute)
	first := s.camera("first")
	if _, err := s.DeleteDevice(t.Context(), first.id); err != nil {
		t.Fatal(err)
	}
	s.revokedRows(4_000, "", s.clock.Now().Add(80*day))
	s.sign()
	if !strings.Contains(s.log.String(), "half full") {
		t.Error("nothing in the log")
	}
	shown, err := s.ShowRevocations(Root())
	if err != nil || shown.Bytes*100/shown.Max < 50 {
		t.Errorf("the console says %+v, %v", shown, err)
	}
	short := s.camera("short")
	if left := mustNode(t, s, short.id).Expires.Sub(s.clock.Now()); left != day {
		t.Errorf("a new certificate lives %s", left)
	}

	s.clock.Add(time.Minute)
	s.revokedRows(20_000, "", s.clock.Now().Add(80*day))
	s.sign()
	wantCode(t, newDevice(t, s.Service).join(t, tok, "late"), 503, api.CodeUnavailable)
	s.clock.Add(time.Minute)
	if _, err := s.DeleteDevice(t.Context(), short.id); err != nil {
		t.Fatal(err)
	}
	crl := s.listed()
	if len(s.CRL()) > cert.MaxCRL || crl.Len() < 37_000 || !s.refused(short.res.Certificate) {
		t.Errorf("%d bytes, %d entries, the last deleted is refused: %v", len(s.CRL()), crl.Len(), s.refused(short.res.Certificate))
	}
	r := s.Revocations()
	if r.Left < 3_000 || r.Left+r.Entries != 41_002 || !strings.Contains(s.log.String(), "the revocation list is full") {
		t.Errorf("%+v", r)
	}
	for _, gone := range []*device{first, short} { // as the relay asks, too
		if _, ok := s.index.has(gone.id); ok {
			t.Error("a deleted device is known")
		}
	}
	s.clock.Add(60 * day)
	if node := s.renewal(d); node.Expires.Sub(s.clock.Now()) != 3*day {
		t.Errorf("a renewed certificate lives %s", node.Expires.Sub(s.clock.Now()))
	}
	// What a restart finds out again.
	s.Close()
	again := openSite(t, func(o *Options) { o.Data, o.Create, o.Now = s.data, false, s.clock.Now })
	again.clock = s.clock
	if got := again.Revocations(); got != r {
		t.Errorf("after a restart: %+v, was %+v", got, r)
	}
	s.clock.Add(20 * day)
	if err := again.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := again.Revocations(); got.Left != 0 || len(again.CRL()) > halfList {
		t.Errorf("when they have expired: %+v", got)
	}
	if err := newDevice(t, again.Service).join(t, again.token(CreateKey{}), "late"); err != nil {
		t.Error(err)
	}
}

// The share of one token gives way before anybody else's devices do.
func TestOneTokenPushesNobodyOut(t *testing.T) {
	s := openSite(t)
	d := s.camera("cam")
	if _, err := s.DeleteDevice(t.Context(), d.id); err != nil {
		t.Fatal(err)
	}
	for range 10 { // all of them later than cam
		s.clock.Add(time.Minute)
		s.revokedRows(4_000, "flood", s.clock.Now().Add(80*day))
	}
	s.sign()
	if r := s.Revocations(); r.Left == 0 || !s.refused(d.res.Certificate) {
		t.Errorf("%+v, refused: %v", r, s.refused(d.res.Certificate))
	}
}

// An older server may have left a list that nobody reads.
func TestListThatIsTooLong(t *testing.T) {
	s := openSite(t)
	d := s.camera("cam")
	s.revokedRows(38_000, "", s.clock.Now().Add(80*day))
	s.clock.Add(time.Minute)
	if _, err := s.DeleteDevice(t.Context(), d.id); err != nil {
		t.Fatal(err)
	}
	number := s.listed().Number + 1
	err := s.store.Write(t.Context(), func(tx *store.Tx) error {
		list, err := tx.Revoked(s.network, s.now())
		if err != nil {
			return err
		}
		var serials []*big.Int
		for _, v := range list {
			serials = append(serials, v.Serial)
		}
		der, err := s.auth.Network.SignCRL(number, serials, time.Time{}, s.now())
		if err != nil || len(der) <= cert.MaxCRL {
			return fmt.Errorf("%d bytes, %w", len(der), err)
		}
		return tx.SetCRL(s.network, number, der, time.Time{})
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	again := openSite(t, func(o *Options) { o.Data, o.Create, o.Now = s.data, false, s.clock.Now })
	if crl := again.listed(); crl.Number <= number || !again.refused(d.res.Certificate) {
		t.Errorf("list %d after %d", crl.Number, number)
	}
}

// A reusable token in a loop of join and logout: its devices get shorter
// certificates, then it is refused, for as long as that takes; nobody else is.
func TestJoinAndLogoutWithoutEnd(t *testing.T) {
	s := openSite(t, func(o *Options) { o.Log = nil })
	tok := s.token(CreateKey{Reusable: true, Life: 366 * day})
	key := must(s.Keys(t.Context(), Root(), 1))(t)[0]
	callers := newCallers(t, s, 100)
	// round has each of them join and log out.
	round := func(want time.Duration) error {
		return s.store.Write(t.Context(), func(tx *store.Tx) error {
			for _, c := range callers {
				node, err := s.joinIn(tx, c, &api.JoinRequest{Hostname: "ci"}, sha(tok.Secret))
				if err != nil {
					return err
				}
				if life := node.Expires.Sub(s.now()); life != want {
					return fmt.Errorf("a life of %v, not %v", life, want)
				}
				if err := s.in(tx).delete(node); err != nil {
					return err
				}
			}
			return nil
		})
	}
	// Rounds at both sides of each limit; others have filled what is between.
	for _, c := range []struct {
		gone int
		life time.Duration
	}{{0, 90 * day}, {100, 3 * day}, {2400, 3 * day}, {2500, day}, {mostGone - 100, day}} {
		gone := s.scalar(`SELECT COUNT(*) FROM issued WHERE revoked_at IS NOT NULL AND key_id = $1`, key.ID)
		s.revokedRows(c.gone-gone, key.ID, s.now().Add(c.life))
		if err := round(c.life); err != nil {
			t.Fatalf("after %d: %v", c.gone, err)
		}
	}
	err := round(0)
	wantCode(t, err, 429, api.CodeTooMany)
	if len(s.CRL()) > 150<<10 {
		t.Errorf("%d bytes", len(s.CRL()))
	}
	if e := err.(*api.Error); !strings.Contains(e.Hint, "another token") || !strings.Contains(e.Hint, "2026-03-02 12:00 UTC") {
		t.Errorf("it is told %q", e.Hint)
	}
	if err := newDevice(t, s.Service).join(t, s.token(CreateKey{Reusable: true}), "other"); err != nil {
		t.Errorf("another token: %v", err)
	}
	s.clock.Add(day + time.Minute)
	if err := s.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.revokedRows(1900, key.ID, s.now().Add(day))
	if err := round(day); err != nil || len(s.CRL()) > 150<<10 {
		t.Errorf("a day later, after 1900: %v, %d bytes", err, len(s.CRL()))
	}
}

// A fleet of thousands joins with one token in an hour; more than 10,000 do not.
func TestJoinsInAnHour(t *testing.T) {
	s := openSite(t)
	tok := s.token(CreateKey{Reusable: true})
	key := must(s.Keys(t.Context(), Root(), 1))(t)[0]
	use := func(n int) (used int) {
		t.Helper()
		err := s.store.Write(t.Context(), func(tx *store.Tx) (err error) {
			for range n {
				if used, err = tx.UseKey(s.network, key.ID, s.now()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return used
	}
	use(maxHourUses - 1)
	if err := newDevice(t, s.Service).join(t, tok, "last"); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, s.Service)
	err := d.join(t, tok, "more")
	wantCode(t, err, 429, api.CodeTooMany)
	if !strings.Contains(err.Error(), "10000 devices have joined with this token within this hour") {
		t.Error(err)
	}
	if key = must(s.Keys(t.Context(), Root(), 1))(t)[0]; key.Uses != maxHourUses {
		t.Errorf("%d uses", key.Uses)
	}
	s.clock.Add(time.Hour)
	if err := d.join(t, tok, "more"); err != nil || use(1) != 2 {
		t.Errorf("in the next hour: %v", err)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Devices that joined in great numbers with one token cannot fill the list by
// leaving all at once: from half on they wait. The owner deletes whom they want.
func TestLeavingTogether(t *testing.T) {
	s := openSite(t)
	tok := s.token(CreateKey{Reusable: true, Ephemeral: true, Life: 30 * day})
	key := must(s.Keys(t.Context(), Root(), 1))(t)[0]
	var list [3]*device
	for i := range list {
		list[i] = newDevice(t, s.Service)
		if err := list[i].join(t, tok, "bot"); err != nil {
			t.Fatal(err)
		}
	}
	other := s.camera("cam")
	s.revokedRows(mostGone, key.ID, s.clock.Now().Add(10*day))
	s.sign()
	if err := list[0].Logout(t.Context()); err != nil {
		t.Errorf("while the list is short: %v", err)
	}
	s.revokedRows(20_000, "", s.clock.Now().Add(10*day))
	s.sign()
	err := list[1].Logout(t.Context())
	wantCode(t, err, 429, api.CodeTooMany)
	if !strings.Contains(err.Error(), "owner") {
		t.Error(err)
	}
	s.clock.Add(time.Hour)
	if err := s.deleteEphemeral(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, all := s.index.counts(""); all != 3 {
		t.Errorf("%d devices are left", all)
	}
	if err := other.Logout(t.Context()); err != nil {
		t.Errorf("a device of another token: %v", err)
	}
	if _, err := s.DeleteDevice(t.Context(), list[1].id); err != nil || !s.refused(list[1].res.Certificate) {
		t.Errorf("the owner: %v", err)
	}
	s.clock.Add(4 * day) // its certificate has ended, so it is no entry
	if err := s.deleteEphemeral(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, all := s.index.counts(""); all != 0 {
		t.Errorf("%d devices are left for good", all)
	}
}
