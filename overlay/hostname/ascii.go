// Package hostname reads the names of devices as people type them: with letters
// beyond ASCII, and with mistakes.
//
// Not for embedders: nodes, servers and resolvers share it; overlay.Node takes
// names as people type them.
package hostname

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// ASCII returns the form in which a name is stored and asked for: labels with
// letters beyond ASCII become A-labels, by the rules of IDNA for what is looked
// up (RFC 5891), which is what an owner's renaming does too. A name in ASCII is
// returned as it is, whatever is in it.
//
// net/http has IDNA and Unicode's tables within, for the hosts of URLs. A second
// copy of them (golang.org/x/net/idna) would be 0.4 MB of a node, so net/http is
// asked: whom would it connect to?
func ASCII(name string) (string, error) {
	if isASCII(name) {
		return name, nil
	}
	for _, c := range []byte(name) {
		if c < 0x80 && c != '.' && c != '-' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') {
			return "", fmt.Errorf("%q beside letters beyond ASCII", c)
		}
	}
	asked := make(chan string, 1)
	no := errors.New("only asked")
	t := &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
		asked <- addr
		return nil, no
	}}
	_, err := t.RoundTrip(&http.Request{URL: &url.URL{Scheme: "http", Host: name}, Header: http.Header{}})
	if !errors.Is(err, no) {
		return "", err
	}
	host, _, err := net.SplitHostPort(<-asked)
	if err != nil {
		return "", err
	}
	// What IDNA refuses is left as it was.
	if !isASCII(host) {
		return "", errors.New("these letters cannot be in a name")
	}
	return host, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
