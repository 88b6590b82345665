package ops

import (
	"errors"
	"fmt"
	"time"
)

// FreshFor is how long after signing in somebody may do what hands over a network or
// an account: a browser that was left open, or a cookie that was stolen, is not enough.
const FreshFor = 5 * time.Minute

// ErrStale is of an operation that wants a sign-in of the last FreshFor. The console
// has its user sign in again.
var ErrStale = errors.New("sign in again to do this")

// fresh marks an operation as one that wants a recent sign-in of people in the console.
func (o *Operation) fresh() *Operation { o.Fresh = true; return o }

// orWeak marks an operation as one for who has proved too little by then.
func (o *Operation) orWeak() *Operation { o.weak = true; return o }

// checkFresh refuses an operation that wants a recent sign-in to who has none.
func (o *Operation) checkFresh(a Actor, now time.Time) error {
	if !o.Fresh {
		return nil
	}
	return o.wantFresh(a, now)
}

// wantFresh is checkFresh of an operation that wants a recent sign-in for some things only.
func (o *Operation) wantFresh(a Actor, now time.Time) error {
	if a.Via != ViaConsole {
		return nil
	}
	if age := now.Sub(a.SignedIn); age < FreshFor && age > -FreshFor {
		return nil
	}
	return fmt.Errorf("%s: %w", o.Name, ErrStale)
}

// CheckFresh says ErrStale when a command of this kind would be refused for that, so
// that a page can ask before a form is filled in.
func (s *Service) CheckFresh(a Actor, c interface{ operation() *Operation }) error {
	return c.operation().checkFresh(a, s.now())
}
