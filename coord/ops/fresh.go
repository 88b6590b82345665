package ops

import (
	"errors"
	"fmt"
	"time"
)

// FreshFor is how long after signing in to the console a person may do operations with which a
// network or an account could be taken over. So a browser that was left open, or a stolen
// cookie, is not enough for them.
const FreshFor = 5 * time.Minute

// ErrStale means that an operation needs a sign-in within the last FreshFor. The console then
// asks the person to sign in again.
var ErrStale = errors.New("sign in again to do this")

// fresh marks an operation that needs a recent sign-in of people in the console.
func (o *Operation) fresh() *Operation { o.Fresh = true; return o }

// orWeak marks an operation that is also open to weak actors (Actor.Weak).
func (o *Operation) orWeak() *Operation { o.weak = true; return o }

// checkFresh returns ErrStale if the operation needs a recent sign-in and the actor has none.
func (o *Operation) checkFresh(a Actor, now time.Time) error {
	if !o.Fresh {
		return nil
	}
	return o.wantFresh(a, now)
}

// wantFresh returns ErrStale if the actor has no recent sign-in. Operations that need one only
// in some cases call it.
func (o *Operation) wantFresh(a Actor, now time.Time) error {
	if a.Via != ViaConsole {
		return nil
	}
	if age := now.Sub(a.SignedIn); age < FreshFor && age > -FreshFor {
		return nil
	}
	return fmt.Errorf("%s: %w", o.Name, ErrStale)
}

// CheckFresh returns ErrStale if the command would be refused with it, so that a page can ask
// for a sign-in before the person fills in a form.
func (s *Service) CheckFresh(a Actor, c interface{ operation() *Operation }) error {
	return c.operation().checkFresh(a, s.now())
}
