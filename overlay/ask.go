package overlay

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cause"
	"weft/overlay/cert"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/network"
	"weft/overlay/internal/pause"
	"weft/overlay/status"
)

// Polling for an answer: at first often, since people approve within seconds.
const (
	firstPoll = 2 * time.Second
	slowPoll  = 10 * time.Second
	// maxAsked bounds how often one Ask asks: again each time that the server was
	// restarted.
	maxAsked     = 4
	withdrawTime = 3 * time.Second
	maxPins      = 64 << 10 // bytes
)

// Ask joins without a token: a signed-in person approves the code that shown is called
// with. It returns once the node is up, or the request was denied or has expired; when ctx
// ends it withdraws the request. The server is known by a certificate that this system
// trusts, or by fingerprint: the SHA-256 of its certificate, or of the key of its CA. With
// neither, shown gets the fingerprint for a person to compare, nothing is asked, and the
// error is KindDenied.
//
// With no server, it is Up for a device that has joined, and asks for the person whose it is
// if it has to be signed in again (sign_in.go). It implements localapi.Node.
func (n *Node) Ask(ctx context.Context, server, fingerprint string, shown func(status.Asked)) error {
	if !n.asking.TryLock() {
		return &status.Error{Kind: status.KindFailed, Message: "another weft up waits for approval already", Hint: "end it first, or approve the code that it shows"}
	}
	defer n.asking.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.bgCtx, cancel)() // the node is closed
	if server == "" {
		return n.signIn(ctx, shown)
	}
	base, want, err := parseAsk(server, fingerprint)
	if err != nil {
		return &status.Error{Kind: status.KindUsage, Message: err.Error()}
	}
	tok, err := n.pins(ctx, base, want)
	if err != nil {
		var u *untrusted
		if errors.As(err, &u) {
			shown(status.Asked{Fingerprint: u.fingerprint})
		}
		return pinsError(err, base)
	}
	if id := n.held.Identity(); id.Joined() && id.Network == tok.Network.NetworkID() {
		return n.signIn(ctx, shown)
	}
	if err := n.ask(ctx, base, tok, shown); err != nil {
		return err
	}
	return n.settle(ctx)
}

// parseAsk returns the address of a server, and the fingerprint that it must have, if
// there is one.
func parseAsk(server, fingerprint string) (base string, want *cert.Pin, err error) {
	base = strings.TrimRight(strings.TrimSpace(server), "/")
	if !strings.Contains(base, "://") {
		base = "https://" + base
	}
	if err := cert.CheckURL(base); err != nil {
		return "", nil, err
	}
	if fingerprint == "" {
		return base, nil, nil
	}
	bare := strings.NewReplacer(":", "", " ", "").Replace(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(fingerprint)), "sha256:"))
	var p cert.Pin
	if p.UnmarshalText([]byte(bare)) != nil {
		return "", nil, errors.New("the fingerprint is not one: want the 64 hexadecimal digits that weft-server prints when it starts, as \"fingerprint\"")
	}
	return base, &p, nil
}

// untrusted is the error for a certificate that this system does not trust, or that has
// not the fingerprint that it should.
type untrusted struct {
	fingerprint string
	other       bool // another was wanted
	err         error
}

func (u *untrusted) Error() string { return u.err.Error() }

// pins asks the public site of a server which CAs it has. The answer is believed if the
// certificate is trusted; with want only if that is its fingerprint, or the pin of the
// server CA, which the link to the server then proves.
func (n *Node) pins(ctx context.Context, base string, want *cert.Pin) (cert.Token, error) {
	u, err := url.Parse(base)
	if err != nil {
		return cert.Token{}, err
	}
	var leaf cert.Pin // of the certificate
	t := &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: n.cfg.NetDial, // nil is net.Dialer
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, // of a reverse proxy
			NextProtos: []string{"http/1.1"},
			ServerName: u.Hostname(),
			// VerifyConnection checks instead.
			InsecureSkipVerify: true,
			VerifyConnection: func(cs tls.ConnectionState) error {
				leaf = sha256.Sum256(cs.PeerCertificates[0].Raw)
				if want != nil {
					return nil // compared below
				}
				between := x509.NewCertPool()
				for _, c := range cs.PeerCertificates[1:] {
					between.AddCert(c)
				}
				// By this machine's clock, as browsers do: weft time before a first contact may
				// be that of the program, and certificates of the Web are younger.
				_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: u.Hostname(), Intermediates: between, CurrentTime: n.cfg.Wall()})
				if err != nil {
					return &untrusted{fingerprint: colons(leaf), err: err}
				}
				return nil
			},
		},
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+api.PinsPath, nil)
	if err != nil {
		return cert.Token{}, err
	}
	res, err := t.RoundTrip(req) // it follows no redirects
	if err != nil {
		return cert.Token{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxPins))
	if err != nil {
		return cert.Token{}, err
	}
	var p api.Pins
	if res.StatusCode != http.StatusOK || json.Unmarshal(body, &p) != nil || p.Server == "" {
		if want != nil && leaf != *want { // it may be anybody
			return cert.Token{}, otherThan(leaf)
		}
		return cert.Token{}, errNoPins
	}
	var tok cert.Token
	if err := errors.Join(tok.Server.UnmarshalText([]byte(p.Server)), tok.Network.UnmarshalText([]byte(p.Network))); err != nil {
		return cert.Token{}, errNoPins
	}
	if want != nil && leaf != *want && tok.Server != *want {
		return cert.Token{}, otherThan(leaf)
	}
	tok.URLs = []string{base}
	for _, u := range p.URLs {
		if len(tok.URLs) < 8 && cert.CheckURL(u) == nil {
			tok.URLs = network.MergeURLs(tok.URLs, []string{u})
		}
	}
	return tok, nil
}

var errNoPins = errors.New("it lets in no devices without a token")

func otherThan(leaf cert.Pin) error {
	return &untrusted{fingerprint: colons(leaf), other: true, err: errors.New("another fingerprint")}
}

// colons is a fingerprint as browsers and weft-server show it.
func colons(p cert.Pin) string {
	s := strings.ToUpper(hex.EncodeToString(p[:]))
	var b strings.Builder
	for i := 0; i < len(s); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(s[i : i+2])
	}
	return b.String()
}

func pinsError(err error, base string) error {
	var u *untrusted
	switch {
	case errors.As(err, &u) && u.other:
		return &status.Error{Kind: status.KindDenied,
			Message: fmt.Sprintf("the server at %s has the fingerprint %s, which is another than the one given", base, u.fingerprint),
			Hint:    "nothing was sent to it; check the address, and compare with what weft-server printed when it started"}
	case errors.As(err, &u):
		return &status.Error{Kind: status.KindDenied,
			Message: fmt.Sprintf("the certificate of the server at %s is not trusted here: its fingerprint is %s", base, u.fingerprint),
			Hint:    "nothing was sent to it; if weft-server printed the same when it started, add: --fingerprint " + u.fingerprint}
	case errors.Is(err, errNoPins):
		return &status.Error{Kind: status.KindFailed,
			Message: fmt.Sprintf("the server at %s lets in no devices without a token: it is no weft-server, or an older one", base),
			Hint:    "check the address; or join with a token: weft up TOKEN"}
	case errors.Is(err, context.Canceled):
		return err
	}
	return &status.Error{Kind: status.KindUnavailable, Message: fmt.Sprintf("cannot reach the server at %s: %v", base, cause.Of(err)),
		Hint: "check the address, and that TCP to it is allowed from here"}
}

// ask asks until somebody has decided, and joins.
func (n *Node) ask(ctx context.Context, base string, tok cert.Token, shown func(status.Asked)) error {
	c, err := n.newcomer(tok)
	if err != nil {
		return err
	}
	defer c.close()
	asked := api.Ask{Protocol: api.Protocol, CSR: c.req.CSR, Hostname: c.req.Hostname, OS: c.req.OS, Software: c.req.Software}
	res, err := n.askFor(ctx, base, c.server, &tok, asked, shown)
	if err != nil {
		return err
	}
	n.clock.Contact(res.Config.ServerTime)
	return n.adopt(c.id, res)
}

// askFor makes a request until somebody has decided. The server is that of tok, nil for one
// that was known before.
func (n *Node) askFor(ctx context.Context, base string, server *client.Client, tok *cert.Token, req api.Ask, shown func(status.Asked)) (*api.JoinResponse, error) {
	doing := "join"
	if req.SignIn {
		doing = "sign in again"
	}
	for range maxAsked {
		begun := time.Now()
		res, err := server.Ask(ctx, req)
		if err != nil {
			withdraw(ctx, server)
			return nil, askError(err, base, doing)
		}
		if tok != nil && (res.Server != tok.Server.String() || res.Network != tok.Network.String()) {
			return nil, &status.Error{Kind: status.KindDenied, Message: fmt.Sprintf("the server at %s is of another network than its public site says", base), Hint: "tell its owner: something in front of it answers in its place"}
		}
		if res.State == api.AskWaiting {
			if !goodCode(res.Code) {
				return nil, &status.Error{Kind: status.KindFailed, Message: "the server's code cannot be shown", Hint: "update weft on this device"}
			}
			shown(status.Asked{Code: res.Code, URL: base + api.ApprovePath + "?code=" + res.Code, Expires: res.Expires, SignIn: req.SignIn})
			res, err = pollAsk(ctx, begun, func(ctx context.Context) (*api.Asked, error) {
				return server.PollAsk(ctx, api.Poll{SignIn: req.SignIn})
			})
		}
		if err != nil {
			withdraw(ctx, server)
			return nil, askError(err, base, doing)
		}
		if res.State == api.AskApproved && res.Join != nil {
			return res.Join, nil
		}
		if err := notLetIn(res.State, time.Since(begun)); err != nil {
			return nil, err
		}
		n.log.Info("the server was restarted and has forgotten the request: asking again")
	}
	return nil, &status.Error{Kind: status.KindUnavailable, Message: fmt.Sprintf("the server at %s forgot the request again and again", base), Hint: "it may be restarting; try again later"}
}

// withdraw ends the request of a device whose user does not wait any more: when ctx has
// ended. A request that cannot be withdrawn expires.
func withdraw(ctx context.Context, server *client.Client) {
	if ctx.Err() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTime)
	defer cancel()
	server.EndAsk(ctx)
}

// notLetIn is the error for a request that ended so after a while; nil if it is to be made
// again.
func notLetIn(state string, after time.Duration) error {
	switch {
	case state == api.AskDenied:
		return &status.Error{Kind: status.KindDenied, Message: "the request was denied", Hint: "ask the person who should have approved it, then run weft up again"}
	case state == api.AskUnknown && after < api.AskLife-slowPoll:
		return nil
	case state == api.AskUnknown, state == api.AskWaiting:
		return &status.Error{Kind: status.KindTimeout, Message: fmt.Sprintf("nobody approved the code within %d minutes", int(api.AskLife/time.Minute)), Hint: "run weft up again for a new one"}
	}
	return &status.Error{Kind: status.KindFailed, Message: "the server's answer is not understood", Hint: "update weft on this device"}
}

// pollAsk asks how the request that began then stands until it does not wait any more. A
// server that cannot be reached may be back before the request expires.
func pollAsk(ctx context.Context, begun time.Time, poll func(context.Context) (*api.Asked, error)) (*api.Asked, error) {
	for wait := firstPoll; ; wait = min(wait*3/2, slowPoll) {
		if !pause.Sleep(ctx, pause.Jitter(wait)) {
			return nil, ctx.Err()
		}
		res, err := poll(ctx)
		over := time.Since(begun) > api.AskLife+slowPoll
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil && (over || follow.RefusedForGood(err)):
			return nil, err
		case err == nil && (over || res.State != api.AskWaiting):
			return res, nil
		}
	}
}

// goodCode reports whether a server's code can be shown to people and stand in a URL.
func goodCode(code string) bool {
	return code != "" && len(code) <= 32 && strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}

func askError(err error, base, doing string) error {
	var refused *api.Error
	switch {
	case errors.As(err, &refused) && refused.Code == api.CodeNotFound:
		return wrapRefusal(pinsError(errNoPins, base).(*status.Error), refused)
	case errors.As(err, &refused):
		return wrapRefusal(&status.Error{Kind: status.KindFailed, Message: doing + ": " + refused.Message, Hint: refused.Hint}, refused)
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, cert.ErrUntrusted):
		return wrapRefusal(&status.Error{Kind: status.KindDenied,
			Message: fmt.Sprintf("%s: another server than its public site says answers at %s: %v", doing, base, err), Hint: "nothing was sent to it; tell its owner"}, err)
	}
	return &status.Error{Kind: status.KindUnavailable, Message: fmt.Sprintf("%s: cannot reach the server at %s: %v", doing, base, cause.Of(err)), Hint: "check the address, and that TCP to it is allowed from here"}
}
