package passhash

import (
	"errors"
	"strings"
	"testing"
)

const password = "correct horse battery staple"

var usual Cost

// Each mode makes hashes of its own. Outside FIPS mode both are checked, so that a server
// can leave it; in FIPS mode the hashes from before are refused, never taken as wrong.
func TestModes(t *testing.T) {
	argon, approved := usual.hash(false, password), usual.hash(true, password)
	if !strings.HasPrefix(argon, "$argon2id$v=19$m=19456,t=3,p=1$") || !strings.HasPrefix(approved, "$pbkdf2-sha256$i=600000$") {
		t.Fatal(argon, approved)
	}
	if again := usual.hash(true, password); again == approved {
		t.Error("the salt is not random")
	}
	for _, c := range []struct {
		name     string
		approved bool
		password string
		hash     string
		ok       bool
		err      error
	}{
		{"argon2id", false, password, argon, true, nil},
		{"argon2id, wrong", false, "wrong", argon, false, nil},
		{"PBKDF2 outside FIPS mode", false, password, approved, true, nil},
		{"nobody", false, password, "", false, nil},
		{"PBKDF2", true, password, approved, true, nil},
		{"PBKDF2, wrong", true, "wrong", approved, false, nil},
		{"argon2id in FIPS mode", true, password, argon, false, ErrNotFIPS},
		{"argon2id in FIPS mode, wrong", true, "wrong", argon, false, ErrNotFIPS},
		{"nobody in FIPS mode", true, password, "", false, nil},
	} {
		if ok, err := usual.is(c.approved, c.password, c.hash); ok != c.ok || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v", c.name, ok, err)
		}
	}
}

// A cheap hash is checked by whoever would make dear ones, and the other way round: each
// says what it cost.
func TestCost(t *testing.T) {
	cheap := Cost{Passes: 1, Memory: 8}
	hash := cheap.hash(false, password)
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Fatal(hash)
	}
	for _, c := range []Cost{usual, cheap} {
		for p, want := range map[string]bool{password: true, "wrong": false} {
			if ok, err := c.is(false, p, hash); ok != want || err != nil {
				t.Errorf("%v, %s: %v, %v", c, p, ok, err)
			}
		}
	}
	if ok, err := cheap.is(false, password, usual.hash(false, password)); !ok || err != nil {
		t.Error(ok, err)
	}
}

// The vectors are of Python: hashlib.pbkdf2_hmac and base64.
func TestPythonAgrees(t *testing.T) {
	const hash = "$pbkdf2-sha256$i=600000$AAECAwQFBgcICQoLDA0ODw$7xdxRO7JQgy8EJPSqLNEqSvFBtDU7JwCjdGfgyTYweY"
	if ok, err := usual.is(true, password, hash); !ok || err != nil {
		t.Error(ok, err)
	}
}

func TestBadHashes(t *testing.T) {
	long := strings.Repeat("A", 22)
	for _, h := range []string{
		"x", "$", "$$", "$argon2id$", "$md5$i=1$" + long + "$" + long,
		"$pbkdf2-sha256$i=1000$" + long + "$" + long,            // too few rounds
		"$pbkdf2-sha256$i=99999999999$" + long + "$" + long,     // for ever
		"$pbkdf2-sha256$i=600000$AAAA$" + long,                  // short salt
		"$pbkdf2-sha256$i=600000$" + long + "$AAAA",             // anything would fit
		"$pbkdf2-sha256$i=600000$" + long + "$" + long + "$$",   // more
		"$argon2id$v=19$m=1048577,t=1,p=1$" + long + "$" + long, // a gigabyte
		"$argon2id$v=18$m=8,t=1,p=1$" + long + "$" + long,
		"$argon2id$v=19$m=8,t=99,p=1$" + long + "$" + long,
		"$argon2id$v=19$m=8,t=1,p=0$" + long + "$" + long,
		"$argon2id$v=19$m=8,t=1,p=1$!$" + long,
	} {
		if ok, err := usual.is(false, password, h); ok || err == nil {
			t.Errorf("%s: %v, %v", h, ok, err)
		}
	}
}
