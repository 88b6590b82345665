package lane

import (
	"bytes"
	"testing"
	"time"
)

var (
	testID  = ID{1, 2, 3}
	testKey = Key{4, 5, 6}
)

func TestData(t *testing.T) {
	b := append(AppendHeader(nil, testID), "payload"...)
	id, payload, ok := ParseData(b)
	if !ok || id != testID || string(payload) != "payload" {
		t.Fatalf("got %x %q %v", id, payload, ok)
	}
	c := make([]byte, HeaderLen)
	PutHeader(c, testID)
	if !bytes.Equal(c, b[:HeaderLen]) {
		t.Fatalf("PutHeader wrote %x, AppendHeader %x", c, b[:HeaderLen])
	}
}

func TestParseRefuses(t *testing.T) {
	good := append(AppendHeader(nil, testID), 1)
	control := AppendControl(nil, Bind, testID, Cookie{7}, testKey)
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"nothing", nil},
		{"no payload", good[:HeaderLen]},
		{"cut header", good[:10]},
		{"other first byte", append([]byte{0xF5}, good[1:]...)},
		{"byte 2", append([]byte{First, 0, 1, 0}, good[4:]...)},
		{"byte 3", append([]byte{First, 0, 0, 1}, good[4:]...)},
		{"unknown kind", append([]byte{First, 4, 0, 0}, control[4:]...)},
		{"short control", control[:ControlLen-1]},
		{"long control", append(bytes.Clone(control), 0)},
	} {
		if k, id, ok := Parse(c.b); ok {
			t.Errorf("%s: parsed as %d %x", c.name, k, id)
		}
	}
	if _, _, ok := ParseData(control); ok {
		t.Error("a control datagram passed for data")
	}
}

func TestOpenControl(t *testing.T) {
	b := AppendControl(nil, Challenge, testID, Cookie{7}, testKey)
	k, cookie, err := OpenControl(b, testID, testKey)
	if err != nil || k != Challenge || cookie != (Cookie{7}) {
		t.Fatalf("got %d %x %v", k, cookie, err)
	}
	for i := range b { // each byte is authenticated
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, _, err := OpenControl(bad, testID, testKey); err == nil {
			t.Errorf("byte %d changed: still opens", i)
		}
	}
	if _, _, err := OpenControl(b, testID, Key{9}); err == nil {
		t.Error("opens with another key")
	}
	if _, _, err := OpenControl(b, ID{9}, testKey); err == nil {
		t.Error("opens for another side")
	}
}

func TestInfo(t *testing.T) {
	in := Info{Send: testID, Recv: ID{9}, Key: testKey, Idle: 2 * time.Minute}
	b := AppendInfo(nil, in)
	if len(b) != InfoLen {
		t.Fatalf("%d bytes, want %d", len(b), InfoLen)
	}
	if out, ok := ParseInfo(append(b, "from the future"...)); !ok || out != in {
		t.Fatalf("got %+v %v, want %+v", out, ok, in)
	}
	for _, bad := range []Info{{Recv: ID{1}}, {Send: ID{1}}, {Send: ID{1}, Recv: ID{1}}} {
		if _, ok := ParseInfo(AppendInfo(nil, bad)); ok {
			t.Errorf("%+v parsed", bad)
		}
	}
	if _, ok := ParseInfo(b[:InfoLen-1]); ok {
		t.Error("a cut one parsed")
	}
	if far, _ := ParseInfo(AppendInfo(nil, Info{Send: testID, Recv: ID{9}, Idle: 100 * time.Hour})); far.Idle != 65535*time.Second {
		t.Errorf("idle %v", far.Idle)
	}
}

func TestBinder(t *testing.T) {
	info := Info{Send: testID, Recv: ID{9}, Key: testKey}
	now := time.Unix(1000, 0)
	b := NewBinder(info)
	out, wake := b.Poll(now)
	k, cookie, err := OpenControl(out, testID, testKey)
	if err != nil || k != Bind || cookie != (Cookie{}) || !wake.After(now) {
		t.Fatalf("first: %d %x %v, wake %v", k, cookie, err, wake)
	}
	if out, again := b.Poll(now); out != nil || again != wake {
		t.Fatal("sends before it is time")
	}
	from := func(k Kind, c Cookie) []byte { return AppendControl(nil, k, testID, c, testKey) }
	for name, d := range map[string][]byte{
		"bound without a challenge": from(Bound, Cookie{}),
		"bound from nowhere":        from(Bound, Cookie{5}),
		"a bind":                    from(Bind, Cookie{5}),
		"other key":                 AppendControl(nil, Challenge, testID, Cookie{5}, Key{8}),
		"other side":                AppendControl(nil, Challenge, ID{8}, Cookie{5}, testKey),
		"junk":                      []byte("junk"),
	} {
		if out := b.Handle(d); out != nil || b.State() != Binding {
			t.Fatalf("%s: answered %x, state %d", name, out, b.State())
		}
	}
	out = b.Handle(from(Challenge, Cookie{5}))
	if _, cookie, err := OpenControl(out, testID, testKey); err != nil || cookie != (Cookie{5}) {
		t.Fatalf("answer to a challenge: %x %v", cookie, err)
	}
	if b.Handle(from(Challenge, Cookie{5})) != nil {
		t.Fatal("answered one challenge twice")
	}
	if b.Handle(from(Bound, Cookie{6})); b.State() != Binding {
		t.Fatal("bound by another cookie")
	}
	if b.Handle(from(Bound, Cookie{5})); b.State() != IsBound {
		t.Fatal("not bound")
	}
	if out, wake := b.Poll(now.Add(time.Hour)); out != nil || !wake.IsZero() {
		t.Fatal("goes on when bound")
	}
	b.Restart()
	if out, _ := b.Poll(now); out == nil || b.State() != Binding {
		t.Fatal("does not restart")
	}
}

// TestBinderWithLongRoundTrip binds over a round trip that is longer than the waits.
func TestBinderWithLongRoundTrip(t *testing.T) {
	b := NewBinder(Info{Send: testID, Recv: ID{9}, Key: testKey})
	now := time.Unix(1000, 0)
	type late struct {
		at time.Time
		b  []byte
	}
	var flying []late // datagrams on their flying to the node
	answer := func(d []byte) {
		if d == nil {
			return
		}
		_, cookie, err := OpenControl(d, testID, testKey)
		if err != nil {
			t.Fatal(err)
		}
		kind := Bound
		if cookie == (Cookie{}) {
			kind, cookie = Challenge, Cookie{byte(len(flying) + 1)}
		}
		flying = append(flying, late{now.Add(900 * time.Millisecond), AppendControl(nil, kind, testID, cookie, testKey)})
	}
	for i := 0; b.State() == Binding; {
		out, _ := b.Poll(now)
		answer(out)
		for ; len(flying) > i && !flying[i].at.After(now); i++ {
			answer(b.Handle(flying[i].b))
		}
		now = now.Add(time.Millisecond)
	}
	if took := now.Sub(time.Unix(1000, 0)); b.State() != IsBound || took > 2*time.Second {
		t.Fatalf("state %d after %v", b.State(), took)
	}
}

func TestBinderGivesUp(t *testing.T) {
	b := NewBinder(Info{Send: testID, Recv: ID{9}, Key: testKey})
	now := time.Unix(1000, 0)
	sent := 0
	for range 20 {
		out, wake := b.Poll(now)
		if out != nil {
			sent++
		}
		if wake.IsZero() {
			break
		}
		now = wake
	}
	if b.State() != Blocked || sent != len(retries) || now.Sub(time.Unix(1000, 0)) > 6*time.Second {
		t.Fatalf("state %d after %d datagrams and %v", b.State(), sent, now.Sub(time.Unix(1000, 0)))
	}
}

func TestHeaderMakesNoGarbage(t *testing.T) {
	b := append(AppendHeader(nil, testID), make([]byte, 1400)...)
	if n := testing.AllocsPerRun(100, func() {
		PutHeader(b, testID)
		if _, _, ok := ParseData(b); !ok {
			t.Fatal("not data")
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(append(AppendHeader(nil, testID), 1))
	f.Add(AppendControl(nil, Bind, testID, Cookie{7}, testKey))
	f.Add(AppendInfo(nil, Info{Send: testID, Recv: ID{9}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, id, ok := Parse(b)
		if ok && k == Data {
			if again := append(AppendHeader(nil, id), b[HeaderLen:]...); !bytes.Equal(again, b) {
				t.Fatalf("%x became %x", b, again)
			}
		}
		if k, cookie, err := OpenControl(b, testID, testKey); err == nil {
			if again := AppendControl(nil, k, testID, cookie, testKey); !bytes.Equal(again, b) {
				t.Fatalf("%x became %x", b, again)
			}
		}
		if i, ok := ParseInfo(b); ok {
			if again := AppendInfo(nil, i); !bytes.Equal(again, b[:InfoLen]) {
				t.Fatalf("%x became %x", b, again)
			}
		}
		binder := NewBinder(Info{Send: testID, Recv: ID{9}, Key: testKey})
		binder.Poll(time.Unix(1, 0))
		binder.Handle(b)
	})
}
