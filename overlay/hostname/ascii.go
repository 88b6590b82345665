// Package hostname handles device names as people type them: with letters beyond ASCII,
// and with typing errors.
//
// Not for embedders: overlay.Node accepts names as people type them.
package hostname

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// ASCII returns the form in which a name is stored and looked up: labels with letters
// beyond ASCII become A-labels, by the IDNA rules for lookups (RFC 5891), which also
// apply when an owner renames a device. A name in ASCII is returned unchanged.
//
// net/http contains IDNA and Unicode's tables, for the hosts of URLs. A second copy
// (golang.org/x/net/idna) would add 0.4 MB to a node, so this function lets net/http
// convert the name, by a request that is never sent.
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
	no := errors.New("not a real dial")
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
	// net/http leaves a host unchanged that IDNA rejects.
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
