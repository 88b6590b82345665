package follow

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/status"
)

// report updates health. The server counts as unreachable only if none of the requests at
// a time was answered.
func (c *Follower) report(st *step, res result, err error, refused bool) {
	h := c.cfg.Health
	if err == nil || refused || alone(err) || forAll(err) {
		c.answered = true
		h.Clear(status.CodeServerOffline)
		h.Clear(status.CodeServerUntrusted)
	}
	if err == nil {
		h.Clear(status.CodeVersion)
		h.Clear(status.CodeRevoked)
	}
	switch {
	case err != nil && forAll(err):
		c.refused(err)
		h.Clear(partWords[res.part].code)
		return
	case err != nil && !c.answered:
		why := fmt.Sprintf("the coordination server does not answer (%v); known devices stay reachable", err)
		if what := lacking(&c.plan.steps); what != "" {
			why += "; possibly out of date: " + what
		}
		h.Set(status.CodeServerOffline, why)
		if errors.Is(err, cert.ErrUntrusted) {
			h.Set(status.CodeServerUntrusted, "the server that answers is not the one that this device trusts")
		}
	}
	if s, ok := c.cfg.Held.Get(); ok && res.part == partCertificate && s.CRL.Superseded(s.Self.Serial) {
		h.Set(status.CodeRenewal, fmt.Sprintf("the tags or the owner of this device were changed, and it has not got the certificate for that yet (%v); until then no other device lets it in", err))
	} else if why := st.warning(res.part); why != "" {
		h.Set(partWords[res.part].code, why)
	} else {
		h.Clear(partWords[res.part].code)
	}
}

// tell makes the node send its versions to the relay, if they have changed.
func (c *Follower) tell() {
	if have := c.versions(); have != c.have {
		c.have = have
		c.cfg.Tell()
	}
}

// refused handles an answer that this node no longer exists, or is too old. The node
// keeps its state: the owner decides, and a mistake on the server must not cost the
// device its identity.
func (c *Follower) refused(err error) {
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeProtocol {
		c.cfg.Health.Set(status.CodeVersion, "the versions of this weft and the server are too far apart; known devices stay reachable until certificates expire: "+e.Error())
	}
	if errors.As(err, &e) && (e.Code == api.CodeRevoked || e.Code == api.CodeUnauthorized) {
		c.cfg.Removed()
	}
}

// pushed takes a revocation list that a relay pushed. It ignores repetitions of a useless
// one.
func (c *Follower) pushed(der []byte, now time.Time) {
	if now.Sub(c.useless) <= crlSpacing {
		return
	}
	sum := sha256.Sum256(der)
	if sum == c.refusedSum || sum == c.plan.steps[partList].sum {
		return
	}
	newer, err := c.TakeCRL(der)
	if err != nil {
		c.cfg.Log.Warn("refused a revocation list that a relay sent", "err", err)
		c.refusedSum = sum
	}
	if !newer {
		c.useless = now
	}
}
