package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"weft/overlay/limited"
)

// doh asks over HTTPS (RFC 8484), with HTTP/2 if both sides have it.
type doh struct {
	url    string
	client *http.Client
}

func newDoH(u *upstream) *doh {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
			// The transport calls this in a goroutine of its own.
			defer limited.Survive(u.f.s.cfg.Log, "dns", func(crash error) { c, err = nil, crash })
			return u.f.dialHost(ctx, &u.addr)
		},
		TLSClientConfig:        u.f.tlsConfig(u.addr.host),
		ForceAttemptHTTP2:      true,
		MaxConnsPerHost:        8,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        streamIdle,
		ResponseHeaderTimeout:  budget,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
	}
	return &doh{url: u.addr.url, client: &http.Client{
		Transport: t,
		// Do not follow a redirect: it leads to another resolver than the configured
		// one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (d *doh) drop() { d.client.CloseIdleConnections() }

// ask posts the question with id 0, so that HTTP caches recognize equal questions.
func (d *doh) ask(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	r, err := d.post(ctx, m, streamSlow)
	if err != nil && ctx.Err() == nil {
		// A reused connection may have died unnoticed.
		d.drop()
		r, err = d.post(ctx, m, budget)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", d.url, err)
	}
	return r, nil
}

func (d *doh) post(ctx context.Context, m *dns.Msg, limit time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := packWith(m, 0)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(out))
	if err != nil {
		return nil, err
	}
	const mime = "application/dns-message"
	req.Header.Set("Content-Type", mime)
	req.Header.Set("Accept", mime)
	req.Header.Set("User-Agent", "") // send nothing about us
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, dns.MaxMsgSize+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("HTTP status %d", resp.StatusCode)
	case resp.Header.Get("Content-Type") != mime:
		return nil, errors.New("the answer is not a DNS message")
	}
	r := new(dns.Msg)
	if !matches(body, 0, m.Question[0], r) {
		return nil, errors.New("the answer is for another question")
	}
	// An HTTP cache has held the answer for this long (RFC 8484 section 5.1).
	if age, err := strconv.ParseUint(resp.Header.Get("Age"), 10, 31); err == nil {
		for _, sec := range [][]dns.RR{r.Answer, r.Ns, r.Extra} {
			for _, rr := range sec {
				if h := rr.Header(); h.Rrtype != dns.TypeOPT {
					h.Ttl -= min(h.Ttl, uint32(age))
				}
			}
		}
	}
	return r, nil
}
