package console

import (
	"strings"
	"time"

	"weft/coord/ops"
	"weft/coord/ratelimit"
	"weft/coord/store"
)

// Attempts to prove who one is are limited by address, by account, and by both
// together, so that nobody who guesses keeps the account's owner out:
//
//   - A browser in which the user has signed in before is known by a cookie. It has
//     attempts of its own, which nobody else can use up.
//   - One address has fewer attempts for an account than the account has: it takes
//     several to use those up, for browsers that are not known.
//   - A session that is there, a one-time link, a passkey and another provider are not
//     limited by what is guessed.
//
// A window of a minute sees at most burst + refill.
var (
	perBrowser = ratelimit.Limit{Burst: 5, Per: time.Minute} // and account, for a browser that is known
	perPair    = ratelimit.Limit{Burst: 3, Per: time.Minute} // address and account
)

// maxWaiting is how many strangers may wait for their password to be checked: more are
// told to try again. Those that are known do not count, and wait for these few at most.
const maxWaiting = 64

// attempt is what one attempt to sign in used up.
type attempt struct {
	limiter *ratelimit.Limiter
	names   []string
	known   bool // the browser is
}

func (a *attempt) take(name string, l ratelimit.Limit, now time.Time) (time.Duration, bool) {
	left, ok := a.limiter.Take(name, l, now)
	if !ok {
		return max(left.Wait, time.Second), false
	}
	a.names = append(a.names, name)
	return 0, true
}

// refund gives an attempt back that turned out to be right.
func (a *attempt) refund() {
	for _, name := range a.names {
		a.limiter.Refund(name)
	}
}

// attempt uses one attempt to sign in as name, who is u if there is such a user. If
// there is none left it says how long to wait. What for keeps apart what is limited
// by itself.
func (c *Console) attempt(v *visit, what, name string, u store.User) (a *attempt, wait time.Duration, err error) {
	a, now := &attempt{limiter: c.logins}, c.now()
	if token := c.token(v.r, knownCookie); token != "" {
		hash := ops.HashToken(token)
		if a.known, err = c.ops.KnownBrowser(v.ctx(), u.ID, hash); err != nil {
			return a, 0, err
		}
		if a.known {
			wait, _ = a.take(what+"browser "+u.ID+" "+string(hash[:]), perBrowser, now)
			return a, wait, nil
		}
	}
	account := what + "account " + strings.ToLower(name)
	addr := c.clientAddr(v.r)
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	// Behind a proxy that is not trusted to name its clients, all of them come from
	// loopback: there only the limits that have the account in them hold.
	if addr.IsValid() && !addr.IsLoopback() {
		if wait, ok := a.take("addr "+addr.String(), perAddr, now); !ok {
			return a, wait, nil
		}
	}
	if wait, ok := a.take(account+" from "+addr.String(), perPair, now); !ok {
		return a, wait, nil
	}
	wait, _ = a.take(account, perAccount, now)
	return a, wait, nil
}

// enqueue lets somebody wait for a password to be checked, until leave: errBusy if too
// many do.
func (c *Console) enqueue(a *attempt) (leave func(), err error) {
	if a.known {
		return func() {}, nil
	}
	select {
	case c.waiting <- struct{}{}:
		return func() { <-c.waiting }, nil
	default:
		return nil, errBusy
	}
}
