// Package client is a client of the server's API (package webapi), over the same types.
// Errors of the server are *webapi.Problem and wrap the error of coord/ops with the same
// code: errors.Is(err, ops.ErrNotFound) works.
//
// client.go sends requests and reads answers, open.go reaches the server on this machine,
// remote.go one elsewhere; each resource has its methods in a file of its name.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// maxAnswer bounds an answer in bytes.
const maxAnswer = 256 << 20

// Client calls a server. Its methods may be called from many goroutines.
type Client struct {
	base   string // "http://weft-server", without a slash
	http   *http.Client
	end    func() error
	remote bool // the server is elsewhere
}

// New returns a client that sends its requests through t to base, such as
// "http://weft-server".
func New(base string, t http.RoundTripper) *Client {
	return &Client{base: base, http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, end: func() error { return nil }}
}

// Close releases what Open has opened.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return c.end()
}

// How often, and how long in total, a request waits after "too many requests".
const (
	maxWaits = 5
	maxWait  = 2 * time.Minute
)

// call sends in (nil for no body) and decodes the answer into out (nil to ignore it). A
// request that the server refused because there were too many is sent again after the
// time that the server names.
func (c *Client) call(ctx context.Context, method, path string, header http.Header, in, out any) error {
	var body []byte
	if in != nil {
		b := &bytes.Buffer{}
		e := json.NewEncoder(b)
		e.SetEscapeHTML(false) // which makes texts longer
		if err := e.Encode(in); err != nil {
			return err
		}
		body = b.Bytes()
	}
	waited := time.Duration(0)
	for i := 0; ; i++ {
		res, answer, err := c.send(ctx, method, path, header, body)
		if err != nil {
			return err
		}
		wait, err := strconv.Atoi(res.Header.Get("Retry-After"))
		waited += time.Duration(wait) * time.Second
		if res.StatusCode == http.StatusTooManyRequests && err == nil && wait >= 0 && i < maxWaits && waited <= maxWait {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(wait) * time.Second):
			}
			continue
		}
		if res.StatusCode >= 300 {
			return c.problem(res, answer)
		}
		return decode(answer, out)
	}
}

// send sends a request and reads its answer.
func (c *Client) send(ctx context.Context, method, path string, header http.Header, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	var answer []byte
	if err == nil {
		defer res.Body.Close()
		answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	}
	var u *url.Error
	switch {
	case errors.As(err, &u):
		err = u.Err
	case err == nil:
		return res, answer, nil
	}
	if c.remote && ctx.Err() == nil {
		return nil, nil, unreached(c.base, err)
	}
	return nil, nil, fmt.Errorf("ask the server: %w", err)
}

func decode(answer []byte, out any) error {
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

func (c *Client) problem(res *http.Response, answer []byte) error {
	p := &webapi.Problem{}
	if ct, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); ct != "application/problem+json" || json.Unmarshal(answer, p) != nil || p.Detail == "" {
		if c.remote {
			return fmt.Errorf("ask the server at %s: it answered %s, and not as the API of a weft-server of this version does: update it, or check --server", c.base, res.Status)
		}
		return fmt.Errorf("ask the server: it answered %s: it is of another version; restart it with this one: systemctl restart weft-server", res.Status)
	}
	p.Status = res.StatusCode
	return p
}

// segment is a word in a path. "." and ".." are no steps in it.
func segment(word string) string {
	if word == "." || word == ".." {
		return strings.ReplaceAll(word, ".", "%2E")
	}
	return url.PathEscape(word)
}

// query is what is set of a query: key, value, key, value. Empty values are left out.
func query(words ...string) string {
	q := url.Values{}
	for i := 0; i < len(words); i += 2 {
		if words[i+1] != "" {
			q.Set(words[i], words[i+1])
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// named refuses an empty word, which would name a whole list instead of one thing of
// it.
func named(kind, word string) error {
	if word == "" {
		return fmt.Errorf("%s %q: %w", kind, word, ops.ErrNotFound)
	}
	return nil
}

func ifMatch(revisions []string) http.Header {
	if revisions == nil {
		return nil
	}
	var tags []string
	for _, v := range revisions {
		tags = append(tags, `"`+v+`"`)
	}
	return http.Header{"If-Match": {strings.Join(tags, ", ")}}
}

// pages reads a whole list. get returns a page of it, and the cursor of the next one.
// The result is not nil.
func pages[T any](get func(cursor string) (part []T, next string, err error)) ([]T, error) {
	all := []T{}
	for cursor := ""; ; {
		part, next, err := get(cursor)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
		if cursor = next; cursor == "" {
			return all, nil
		}
	}
}

// pageSize is how many entries of a list one request asks for.
const pageSize = "1000"

// wholeSeconds rounds a life up, nil for none.
func wholeSeconds(d time.Duration) *int64 {
	if d == 0 {
		return nil
	}
	s := int64((d + time.Second - 1) / time.Second)
	return &s
}
