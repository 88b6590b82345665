package ops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"weft/coord/store"
)

// noAddr is the address of an actor that is made only to find out what a user may do.
var noAddr netip.Addr

// SignInSettings returns what the network demands of people who sign in.
func (s *Service) SignInSettings(a Actor) (store.SignIn, error) {
	if err := opSignInRead.authorize(a, target{}); err != nil {
		return store.SignIn{}, err
	}
	return *s.signIn.Load(), nil
}

// demandsOf reports whether the network demands a second factor of a role.
func (s *Service) demandsOf(r Role) bool {
	return s.signIn.Load().Demanded && (r == RoleOwner || r == RoleAdmin || r == RoleOperator)
}

// SetSignIn changes what the network demands of people who sign in, and of devices. Fields that
// are nil change nothing.
type SetSignIn struct {
	Match         []string `json:"-"` // SignInRevision must be one of these; nil for any
	Demanded      *bool    `json:"second_factor_demanded,omitempty" doc:"operators, admins and owners need a passkey, or a code in addition to the password; people who have none set one up at their next sign-in"`
	DeviceDays    *int     `json:"device_days,omitempty" minimum:"0" maximum:"365" doc:"days, 1 to 365, after which the owner of a device without tags has to sign it in again, or it reaches nothing; 0 for never; a shorter period begins now for all devices"`
	PasskeyDomain *string  `json:"passkey_domain,omitempty" doc:"the domain for which passkeys are, such as example.org: the console's host name has to be this domain or below it; passkeys that were made for another domain do not work any more"`
}

func (SetSignIn) operation() *Operation { return opSignInSet }

func (c SetSignIn) run(tx *Tx) (store.SignIn, error) {
	if err := tx.may(target{kind: "network", id: tx.s.network.String()}); err != nil {
		return store.SignIn{}, err
	}
	old, err := tx.SignIn(tx.s.network)
	if err != nil {
		return old, err
	}
	if err := matches(c.Match, SignInRevision(old)); err != nil {
		return old, fmt.Errorf("sign-in settings: %w", err)
	}
	now := old
	if c.Demanded != nil {
		now.Demanded = *c.Demanded
	}
	if c.PasskeyDomain != nil {
		now.PasskeyDomain = strings.ToLower(*c.PasskeyDomain)
		if d := now.PasskeyDomain; len(d) > 253 || !suffixPattern.MatchString(d) || !strings.Contains(d, ".") {
			return old, Invalid("passkey domain %q: want a DNS name such as example.org", printable(*c.PasskeyDomain, 64))
		}
	}
	if c.DeviceDays != nil {
		if now.DeviceDays = *c.DeviceDays; now.DeviceDays < 0 || now.DeviceDays > maxDeviceDays {
			return old, Invalid("device days %d: want 1 to %d, or 0 for never", now.DeviceDays, maxDeviceDays)
		}
		switch {
		case now.DeviceDays == 0:
			now.DeviceFrom = nil
		case old.DeviceDays == 0 || now.DeviceDays < old.DeviceDays:
			now.DeviceFrom = orNil(tx.now) // so that no device is overdue at once
		}
	}
	if old == now {
		return now, nil
	}
	if err := tx.changeSignIn(opSignInSet, old, now); err != nil {
		return old, err
	}
	if old.DeviceDays != now.DeviceDays {
		if _, err := tx.judgeSignIns(now, math.MaxInt32); err != nil {
			return old, err
		}
		if err := tx.configChanged(); err != nil { // each device learns from its config when it is due
			return old, err
		}
	}
	orphans, err := tx.OtherPasskeys(tx.s.network, now.PasskeyDomain)
	if orphans > 0 && old.PasskeyDomain != now.PasskeyDomain {
		tx.After(func() {
			tx.s.log.Warn("passkeys are for another domain now; passkeys for the old domain do not work any more", "domain", now.PasskeyDomain, "before", old.PasskeyDomain, "passkeys", orphans)
		})
	}
	return now, err
}

// changeSignIn stores the sign-in settings, and notes the change for the audit and for follow.
func (tx *Tx) changeSignIn(o *Operation, old, now store.SignIn) error {
	if err := tx.SetSignIn(tx.s.network, now); err != nil {
		return fmt.Errorf("store the sign-in settings: %w", err)
	}
	n, err := tx.Bump(tx.s.network)
	if err != nil {
		return err
	}
	tx.changed(n, store.SignInChanged, "")
	tx.note(o, target{kind: "network", id: tx.s.network.String()}, old, now)
	return nil
}

// loadSignIn reads the sign-in settings into memory at the start.
func (s *Service) loadSignIn(ctx context.Context) error {
	return s.store.Read(ctx, func(r *store.Reader) error {
		now, err := r.SignIn(s.network)
		s.signIn.Store(&now)
		return err
	})
}

// SignInRevision returns a hash of the sign-in settings, for SetSignIn.Match.
func SignInRevision(s store.SignIn) string { return jsonRevision(s) }

// ProviderRevision returns a hash of a provider and its secret, for SetProvider.Match.
func ProviderRevision(p store.Provider) string { return jsonRevision([]any{p, p.Secret}) }

// jsonRevision returns a hash of a value's JSON.
func jsonRevision(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "" // cannot happen: the values consist of texts and times
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
