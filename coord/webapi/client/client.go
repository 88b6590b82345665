// Package client is a client of the server's API (package webapi), over the same types.
// Errors of the server are *webapi.Problem, and wrap those of coord/ops that they
// stand for: errors.Is(err, ops.ErrNotFound).
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

	"weft/coord/audit"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
)

// maxAnswer bounds an answer in bytes.
const maxAnswer = 256 << 20

// Client calls a server. Its methods may be called from many goroutines.
type Client struct {
	base string // "http://weft-server", without a slash
	http *http.Client
	end  func() error
}

// New returns a client that sends its requests through t to base, such as
// "http://weft-server".
func New(base string, t http.RoundTripper) *Client {
	return &Client{base: base, http: &http.Client{Transport: t}, end: func() error { return nil }}
}

// Close lets go of what Open has opened.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return c.end()
}

// call sends in, nil for no body, and decodes the answer into out, nil for none.
func (c *Client) call(ctx context.Context, method, path string, header http.Header, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1"+path, body)
	if err != nil {
		return err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("ask the server: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	if res.StatusCode >= 300 {
		return problem(res, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

func problem(res *http.Response, answer []byte) error {
	p := &webapi.Problem{}
	if ct, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); ct != "application/problem+json" || json.Unmarshal(answer, p) != nil || p.Detail == "" {
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

// named refuses a word that would name a whole list instead of one thing of it.
func named(kind, word string) error {
	if word == "" {
		return fmt.Errorf("%s %q: %w", kind, word, ops.ErrNotFound)
	}
	return nil
}

// DevicePage returns a page of devices. Offset is not used.
func (c *Client) DevicePage(ctx context.Context, q ops.DeviceQuery) (list ops.DeviceList, err error) {
	limit := ""
	if q.Limit != 0 {
		limit = strconv.Itoa(q.Limit)
	}
	err = c.call(ctx, "GET", "/devices"+query("text", q.Text, "state", q.State, "key", q.KeyID, "cursor", q.After, "limit", limit), nil, nil, &list)
	return list, err
}

// Devices returns all devices that fit, by name. The list is not nil.
func (c *Client) Devices(ctx context.Context, q ops.DeviceQuery) ([]ops.Device, error) {
	all := []ops.Device{}
	for q.Limit = 5000; ; {
		page, err := c.DevicePage(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Devices...)
		if q.After = page.Next; q.After == "" {
			return all, nil
		}
	}
}

// Device finds a device by name, address or id.
func (c *Client) Device(ctx context.Context, name string) (d ops.Device, err error) {
	return d, c.ofDevice(ctx, "GET", name, "", nil, nil, &d)
}

func (c *Client) ofDevice(ctx context.Context, method, name, more string, header http.Header, in any, d *ops.Device) error {
	if err := named("device", name); err != nil {
		return err
	}
	return c.call(ctx, method, "/devices/"+segment(name)+more, header, in, d)
}

// EditDevice renames a device and sets how it answers and asks. With e.Match that is
// done only to one of these revisions (ops.Device.Revision). e.ID is not used.
func (c *Client) EditDevice(ctx context.Context, name string, e ops.EditDevice) (d ops.Device, err error) {
	return d, c.ofDevice(ctx, "PATCH", name, "", ifMatch(e.Match), e, &d)
}

// DeleteDevice deletes a device and returns what it was.
func (c *Client) DeleteDevice(ctx context.Context, name string) (d ops.Device, err error) {
	return d, c.ofDevice(ctx, "DELETE", name, "", nil, nil, &d)
}

// ReplaceDevice deletes the device name and gives its name to the device by.
func (c *Client) ReplaceDevice(ctx context.Context, name, by string) (d ops.Device, err error) {
	return d, c.ofDevice(ctx, "POST", name, "/replace", nil, webapi.NewDevice{By: by}, &d)
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

// KeyPage returns a page of keys.
func (c *Client) KeyPage(ctx context.Context, cursor string, limit int) (list webapi.KeyList, err error) {
	err = c.call(ctx, "GET", "/keys"+query("cursor", cursor, "limit", strconv.Itoa(limit)), nil, nil, &list)
	return list, err
}

// Keys returns all keys, newest first. The list is not nil.
func (c *Client) Keys(ctx context.Context) ([]store.Key, error) {
	all := []store.Key{}
	for cursor := ""; ; {
		page, err := c.KeyPage(ctx, cursor, 1000)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Keys...)
		if cursor = page.Next; cursor == "" {
			return all, nil
		}
	}
}

// Key returns one key.
func (c *Client) Key(ctx context.Context, id string) (k store.Key, err error) {
	if err := named("key", id); err != nil {
		return k, err
	}
	err = c.call(ctx, "GET", "/keys/"+segment(id), nil, nil, &k)
	return k, err
}

// CreateKey makes a key. Its life is rounded up to whole seconds.
func (c *Client) CreateKey(ctx context.Context, k ops.CreateKey) (made ops.KeyCreated, err error) {
	in := webapi.NewKey{CreateKey: k}
	if k.Life != 0 {
		s := int64((k.Life + time.Second - 1) / time.Second)
		in.LifeSeconds = &s
	}
	err = c.call(ctx, "POST", "/keys", nil, in, &made)
	return made, err
}

// RevokeKey makes a key useless.
func (c *Client) RevokeKey(ctx context.Context, id string) (k store.Key, err error) {
	if err := named("key", id); err != nil {
		return k, err
	}
	err = c.call(ctx, "POST", "/keys/"+segment(id)+"/revoke", nil, nil, &k)
	return k, err
}

// Users returns all users, by name.
func (c *Client) Users(ctx context.Context) ([]store.User, error) {
	var list webapi.UserList
	err := c.call(ctx, "GET", "/users", nil, nil, &list)
	return list.Users, err
}

// CreateUser makes a user.
func (c *Client) CreateUser(ctx context.Context, name string) (u store.User, err error) {
	err = c.call(ctx, "POST", "/users", nil, ops.CreateUser{Name: name}, &u)
	return u, err
}

// DeleteUser deletes a user, by name or id, without devices and keys.
func (c *Client) DeleteUser(ctx context.Context, name string) (u store.User, err error) {
	if err := named("user", name); err != nil {
		return u, err
	}
	err = c.call(ctx, "DELETE", "/users/"+segment(name), nil, nil, &u)
	return u, err
}

// DNS returns everything that is set about names.
func (c *Client) DNS(ctx context.Context) (i ops.DNSInfo, err error) {
	err = c.call(ctx, "GET", "/dns", nil, nil, &i)
	return i, err
}

// EditDNS changes what is set about names, and returns all of it.
func (c *Client) EditDNS(ctx context.Context, e ops.DNSEdit) (i ops.DNSInfo, err error) {
	err = c.call(ctx, "PATCH", "/dns", nil, e, &i)
	return i, err
}

// PreviewName says what a name will answer. From is a device's name, address or id.
func (c *Client) PreviewName(ctx context.Context, q ops.PreviewQuery) (p ops.Preview, err error) {
	err = c.call(ctx, "GET", "/dns/preview"+query("name", q.Name, "type", q.Type, "from", q.From), nil, nil, &p)
	return p, err
}

// Relays returns all relays, the server's own first.
func (c *Client) Relays(ctx context.Context) ([]ops.RelayInfo, error) {
	var list webapi.RelayList
	err := c.call(ctx, "GET", "/relays", nil, nil, &list)
	return list.Relays, err
}

// DeleteRelay removes a relay, by name or id, and returns what it was.
func (c *Client) DeleteRelay(ctx context.Context, name string) (r ops.RelayInfo, err error) {
	if err := named("relay", name); err != nil {
		return r, err
	}
	err = c.call(ctx, "DELETE", "/relays/"+segment(name), nil, nil, &r)
	return r, err
}

// Revocations says how full the revocation list is.
func (c *Client) Revocations(ctx context.Context) (r ops.Revocations, err error) {
	err = c.call(ctx, "GET", "/network/revocations", nil, nil, &r)
	return r, err
}

// LoginLink makes a sign-in link for a user, "" for the network's owner.
func (c *Client) LoginLink(ctx context.Context, user string) (string, error) {
	var l webapi.Link
	err := c.call(ctx, "POST", "/login-links", nil, webapi.NewLink{User: user}, &l)
	return l.URL, err
}

// Snapshot writes a consistent copy of the database into the data directory while
// everything goes on, and returns its path; the caller removes it.
func (c *Client) Snapshot(ctx context.Context) (string, error) {
	var s webapi.Snapshot
	err := c.call(ctx, "POST", "/snapshots", nil, nil, &s)
	return s.Path, err
}

// Policy returns the policy as it was written.
func (c *Client) Policy(ctx context.Context) (p ops.PolicyText, err error) {
	err = c.call(ctx, "GET", "/policy", nil, nil, &p)
	return p, err
}

// SetPolicy puts a policy into force, "" for the starting one: if match is not nil,
// only in the place of one of these revisions (ops.PolicyText.Revision).
func (c *Client) SetPolicy(ctx context.Context, text string, match []string) (p ops.PolicyText, err error) {
	err = c.call(ctx, "PUT", "/policy", ifMatch(match), webapi.NewPolicy{Text: text}, &p)
	return p, err
}

// CheckPolicy says what is wrong with a policy, and changes nothing.
func (c *Client) CheckPolicy(ctx context.Context, text string) error {
	return c.call(ctx, "POST", "/policy/check", nil, webapi.NewPolicy{Text: text}, nil)
}

// Audit returns a page of audit records; w.Limit is 1 to 1000.
func (c *Client) Audit(ctx context.Context, w store.AuditFilter) ([]audit.Line, error) {
	moment := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	cursor, oldest := "", ""
	if w.Cursor != 0 {
		cursor = strconv.FormatUint(w.Cursor, 10)
	}
	if w.Oldest {
		oldest = "true"
	}
	var list webapi.AuditList
	err := c.call(ctx, "GET", "/audit"+query("since", moment(w.Since), "until", moment(w.Until), "op", w.Op, "user", w.User, "target", w.Target,
		"cursor", cursor, "limit", strconv.Itoa(w.Limit), "oldest", oldest), nil, nil, &list)
	return list.Records, err
}

// AuditHead returns the signed head of the audit.
func (c *Client) AuditHead(ctx context.Context) (audit.Head, error) {
	var h webapi.AuditHead
	err := c.call(ctx, "GET", "/audit/head", nil, nil, &h)
	return h.Head, err
}

// VerifyAudit checks the whole audit, also against a head that was kept elsewhere (nil
// for none). What is wrong with it is in the report.
func (c *Client) VerifyAudit(ctx context.Context, outside *audit.Head) (r ops.AuditReport, err error) {
	head := ""
	if outside != nil {
		head = outside.String()
	}
	err = c.call(ctx, "GET", "/audit/verify"+query("head", head), nil, nil, &r)
	return r, err
}
