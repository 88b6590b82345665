package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// aLabels makes the ASCII form of a name with letters beyond ASCII, by the
// rules of IDNA for what is looked up (RFC 5891).
//
// net/http has IDNA and Unicode's tables within, for the hosts of URLs. A second
// copy of them (golang.org/x/net/idna) would be 0.4 MB of a node, so net/http is
// asked: whom would it connect to?
func aLabels(name string) (string, error) {
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
	if strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }) {
		return "", errors.New("these letters cannot be in a name")
	}
	return host, nil
}
