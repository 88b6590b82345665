package ops

import (
	"testing"

	"weft/coord/store"
	"weft/overlay/fips"
)

func TestShowFIPS(t *testing.T) {
	s := openSite(t)
	for i, hash := range []string{"", "$argon2id$v=19$m=8,t=1,p=1$x$x", "$pbkdf2-sha256$i=600000$x$x", "$argon2id$y"} {
		id := s.member(string(rune('a' + i))).UserID
		if err := s.store.Write(t.Context(), func(tx *store.Tx) error { return tx.SetPassword(s.network, id, hash, [32]byte{}) }); err != nil {
			t.Fatal(err)
		}
	}
	for name, secret := range map[string][]byte{"old": make([]byte, totpSecret), "older": make([]byte, totpSecret), "new": make([]byte, totpSecret256)} {
		id := s.member(name).UserID
		sealed, err := s.auth.Seal(totpAbout(id), secret)
		if err == nil {
			err = s.store.Write(t.Context(), func(tx *store.Tx) error {
				return tx.SetTOTP(s.network, id, store.TOTP{Secret: sealed, Created: s.clock.Now()})
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.ShowFIPS(t.Context(), s.owner())
	if err != nil || f.Status != fips.Now() || f.Refused != 2 || f.RefusedCodes != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err = s.ShowFIPS(t.Context(), s.member("e")); err != nil || f.Refused != 0 || f.RefusedCodes != 0 {
		t.Errorf("a member sees %+v, %v", f, err)
	}
}
