package ca

import (
	"bytes"
	"testing"
	"time"
)

// What is sealed is read by the same server, after a restart too, for the same thing,
// and by nobody else.
func TestSeal(t *testing.T) {
	dir := t.TempDir()
	a, err := Open(dir, true, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	one, err := a.Seal("totp of alice", []byte("canary"))
	if err != nil {
		t.Fatal(err)
	}
	two, _ := a.Seal("totp of alice", []byte("canary"))
	if bytes.Contains(one, []byte("canary")) || bytes.Equal(one, two) {
		t.Errorf("%q, %q", one, two)
	}
	again, err := Open(dir, false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Unseal("totp of alice", one); err != nil || string(got) != "canary" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := again.Unseal("totp of bob", one); err == nil {
		t.Error("opened for another")
	}
	for i := range one {
		bad := bytes.Clone(one)
		bad[i] ^= 1
		if _, err := again.Unseal("totp of alice", bad); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
	}
	other, err := Open(t.TempDir(), true, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{one, nil, one[:5]} {
		if _, err := other.Unseal("totp of alice", b); err == nil {
			t.Error("opened by another server")
		}
	}
}
