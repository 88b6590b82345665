package ops

import (
	"context"

	"weft/coord/passhash"
	"weft/coord/store"
	"weft/overlay/fips"
)

// FIPS is the state of the server's FIPS 140-3 mode.
type FIPS struct {
	fips.Status
	// Refused counts the users with a password that was set outside FIPS mode, which FIPS
	// mode does not accept. It counts only users whom the actor may see.
	Refused int `json:"refused_passwords"`
	// RefusedCodes counts, likewise, the users whose codes were set up outside FIPS mode.
	RefusedCodes int `json:"refused_codes"`
}

// ShowFIPS returns whether this process is in FIPS mode, and what that mode refuses. The actor
// must be allowed to see the network.
func (s *Service) ShowFIPS(ctx context.Context, a Actor) (FIPS, error) {
	if err := opNetworkShow.asks(a); err != nil {
		return FIPS{}, err
	}
	f := FIPS{Status: fips.Now()}
	if opUserRead.asks(a) != nil {
		return f, nil
	}
	users, err := s.Users(ctx, a)
	for _, u := range users {
		if passhash.Outside(u.Password) {
			f.Refused++
		}
	}
	if err != nil {
		return f, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) error {
		for _, u := range users {
			t, err := r.TOTP(s.network, u.ID)
			if isNotFound(err) {
				continue
			}
			var secret []byte
			if err == nil {
				secret, err = s.auth.Unseal(totpAbout(u.ID), t.Secret)
			}
			if err != nil {
				return err
			}
			if !TOTPSHA256(secret) {
				f.RefusedCodes++
			}
		}
		return nil
	})
	return f, err
}
