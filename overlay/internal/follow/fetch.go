package follow

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"runtime"
	"slices"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/internal/network"
	"weft/overlay/internal/pause"
)

// Requests to the server, each in a goroutine of its own. Each ends with a result, which
// Run's goroutine uses. plan.go decides what is asked and when.

// result is the outcome of a request for a part.
type result struct {
	part part
	word string // the version that was requested
	err  error
	cost int64  // bytes received
	body []byte // of a revocation list
	tag  string // the server's ETag of the list
	// restored: the server has an older revocation list than this node.
	restored bool
	// use applies the answer, in Run's goroutine; nil if the server has nothing new. It
	// reports whether anything is new.
	use func() (news bool, err error)
}

// How long requests may take, by the length of their answers.
const (
	fetchTimeout = 30 * time.Second
	longTimeout  = 2 * time.Minute
)

// ask asks the server for a part. It runs beside Run and uses none of its fields.
func (c *Follower) ask(ctx context.Context, s *network.Network, q question) (res result) {
	limit := fetchTimeout
	if q.part == partList || q.part == partDirectory {
		limit = longTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cl := c.cfg.Client
	res = result{part: q.part, word: q.word}
	switch q.part {
	case partList:
		c.askList(ctx, s, cl, q.tag, &res)
	case partCertificate:
		c.askCertificate(ctx, s, cl, &res)
	case partConfig:
		c.askConfig(ctx, s, cl, &res)
	case partDirectory:
		have := c.cfg.Directory.Version()
		dir, err := cl.Directory(ctx, have)
		res.err = err
		res.use = func() (bool, error) {
			if c.cfg.Directory.Version() != have {
				return true, nil // a nudge has brought a change meanwhile: ask again
			}
			now, ok := c.cfg.Held.Get()
			if !ok {
				return false, net.ErrClosed
			}
			c.takeDirectory(now, dir)
			return dir.Version != have, nil
		}
	}
	var answer *client.AnswerError
	if errors.As(res.err, &answer) {
		res.cost, res.body = int64(len(answer.Came)), answer.Came
	}
	return res
}

func (c *Follower) askList(ctx context.Context, s *network.Network, cl *client.Client, refused string, res *result) {
	known := []string{refused}
	if s.CRL != nil {
		known = append(known, api.CRLTag(s.CRL.Number))
	}
	der, tag, err := cl.CRL(ctx, known...)
	res.tag, res.err, res.cost, res.body = tag, err, int64(len(der)), der
	if der != nil {
		res.use = func() (bool, error) { return c.TakeCRL(der) }
	}
}

func (c *Follower) askConfig(ctx context.Context, s *network.Network, cl *client.Client, res *result) {
	config, err := cl.Config(ctx, s.Config.Version)
	if res.err = err; err != nil || config == nil {
		return
	}
	res.cost = costly + 1 // its length is unknown
	res.use = func() (bool, error) {
		if err := c.TakeConfig(config); err != nil {
			return false, err
		}
		if !slices.EqualFunc(s.Config.NetworkCAs, config.NetworkCAs, bytes.Equal) {
			c.plan.mayFit(partList, partDirectory)
		}
		return true, nil
	}
	res.restored = s.CRL != nil && config.Versions.CRL < s.CRL.Number
}

// give sends this node's revocation list to a server that was restored from a backup and
// so does not know who was deleted since. It tries until the list has arrived, or this
// node gets a newer one, because perhaps no other node has this list.
func (c *Follower) give(ctx context.Context) {
	s, ok := c.cfg.Held.Get()
	if !ok || s.CRL == nil || !c.giving.CompareAndSwap(false, true) {
		return
	}
	list := s.CRL
	c.tasks.Go(func() {
		defer c.giving.Store(false)
		for wait := firstHold; ; wait = min(2*wait, maxHold) {
			one, cancel := context.WithTimeout(ctx, longTimeout)
			err := c.cfg.Client.SendCRL(one, list.Raw)
			cancel()
			if err == nil || ctx.Err() != nil {
				return
			}
			c.cfg.Log.Warn("send the server the revocation list", "err", err)
			if alone(err) || forAll(err) || !pause.Sleep(ctx, pause.Jitter(wait)) {
				return
			}
			if now, ok := c.cfg.Held.Get(); !ok || now.CRL != list {
				return
			}
		}
	})
}

func (c *Follower) askCertificate(ctx context.Context, s *network.Network, cl *client.Client, res *result) {
	id := c.cfg.Held.Identity()
	if !id.Joined() {
		return
	}
	csr, err := cert.NewCSR(id.Key)
	if err != nil {
		res.err = err
		return
	}
	answer, err := cl.Renew(ctx, api.RenewRequest{Protocol: api.Protocol, CSR: csr, OS: runtime.GOOS + "/" + runtime.GOARCH, Software: c.cfg.Software})
	res.err = err
	res.use = func() (bool, error) { return true, c.renew(s, answer.Certificate) }
}

// checkRefusal finds out why a relay does not know this node. If the server does, perhaps
// the relay has a list that names this node's certificate, and this node has not: then it
// needs another certificate. It also sends this node's
// revocation list to the server, once: perhaps the server was restored from a backup made
// before the node joined, and then it does not know who was deleted since, either. Then
// it fetches the list: perhaps the relay has a newer list, which no longer covers this
// node's expired certificate. Then the node needs that list and a new certificate.
//
// Most probably the node was deleted. Then the server answers every request with that.
func (c *Follower) checkRefusal(ctx context.Context) {
	s, ok := c.cfg.Held.Get()
	if !ok || !c.bringing.CompareAndSwap(false, true) {
		return
	}
	c.tasks.Go(func() {
		defer c.bringing.Store(false)
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		if _, err := c.cfg.Client.Config(ctx, s.Config.Version); RefusedForGood(err) {
			c.refused(err)
		} else if err == nil {
			c.Renew()
		}
		if s.CRL == nil || s.CRL.Number <= c.sent.Load() {
			return
		}
		if err := c.cfg.Client.SendCRL(ctx, s.CRL.Raw); err != nil {
			c.cfg.Log.Info("send the server the revocation list", "err", err)
			return
		}
		c.sent.Store(s.CRL.Number)
		der, _, err := c.cfg.Client.CRL(ctx, api.CRLTag(s.CRL.Number))
		if err != nil {
			c.cfg.Log.Info("fetch the revocation list", "err", err)
		} else if der != nil {
			c.WantCRL(der)
		}
	})
}

// alone reports whether only this request failed, and the server answers others.
func alone(err error) bool {
	var e *api.Error
	var answer *client.AnswerError
	return errors.As(err, &answer) || errors.As(err, &e) && !forAll(err) && e.Status != http.StatusBadGateway &&
		e.Status != http.StatusServiceUnavailable && e.Status != http.StatusGatewayTimeout
}

// forAll reports whether the server refuses every request of this node.
func forAll(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && (e.Code == api.CodeProtocol || e.Code == api.CodeRevoked || e.Code == api.CodeUnauthorized)
}

// RefusedForGood reports whether another attempt at the same request is useless.
func RefusedForGood(err error) bool {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout
	}
	return errors.Is(err, cert.ErrUntrusted)
}
