package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"weft/cmd/internal/cli"
	"weft/coord"
	"weft/coord/ca"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

// signIn is a sign-in link, which works once, in the forms that people need.
type signIn struct {
	link string // at the console's address, which is on loopback if the console listens there
	// public is the same link at an address that other machines can reach, "" if link has that
	// address already or there is none.
	public string
	// fingerprint is the SHA-256 of the certificate that browsers see at that address, "" if they
	// trust the certificate.
	fingerprint string
}

// newSignIn adds the public form to a link. own are the site's certificates.
func newSignIn(link string, urls []string, own [][]byte) signIn {
	s := signIn{link: link}
	l, err := url.Parse(link)
	if err != nil {
		return s
	}
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || ops.OnlyHere(u.Hostname()) {
			continue
		}
		if u.Host != l.Host {
			s.public = strings.TrimSuffix(raw, "/") + l.RequestURI()
		}
		if len(own) == 1 { // if there are more, one is a CA's, which browsers trust
			s.fingerprint = ca.Fingerprint(own[0])
		}
		break
	}
	return s
}

// signInOf makes a signIn of a link that the API returned. It asks the server for its
// addresses, and finds its certificates in the data directory.
func signInOf(ctx context.Context, a *client.Client, data, link string) (signIn, error) {
	list, err := a.Relays(ctx)
	if err != nil {
		return signIn{}, err
	}
	var urls []string
	for _, r := range list {
		if r.Builtin {
			urls = r.URLs
		}
	}
	return newSignIn(link, urls, coord.OwnCertificates(data)), nil
}

// greet prints what the owner of a new network needs to begin. Programs read the
// first two lines.
func (s signIn) greet(w io.Writer, token string) error {
	text := fmt.Sprintf("console %s\ntoken %s\n", s.link, token)
	if s.public != "" {
		text += "public " + s.public + "\n"
	}
	if s.fingerprint != "" {
		text += "fingerprint " + s.fingerprint + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// fields returns a sign-in link for JSON output.
func (s signIn) fields() map[string]any {
	return map[string]any{"url": s.link, "public_url": s.public, "fingerprint": s.fingerprint}
}

// explain returns words that say how to use the link from another machine.
func (s signIn) explain() string {
	var b strings.Builder
	if s.public != "" {
		fmt.Fprintf(&b, "From another machine: %s\n", cli.Plain(s.public))
	}
	if s.fingerprint != "" {
		fmt.Fprintf(&b, "The browser will warn, since the server's certificate is its own. Go on if its SHA-256 fingerprint is\n%s\n", s.fingerprint)
	}
	if s.public != "" {
		b.WriteString("The link works once, by either address.\n")
	}
	return b.String()
}
