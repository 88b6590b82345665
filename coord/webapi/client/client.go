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

// Close lets go of what Open has opened.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return c.end()
}

// How often, and how long in all, a request waits that there were too many of.
const (
	maxWaits = 5
	maxWait  = 2 * time.Minute
)

// call sends in, nil for no body, and decodes the answer into out, nil for none. What
// the server did not look at, as there were too many requests, is sent again when it
// says.
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
	if key, ok := ctx.Value(onceKey{}).(string); ok && method == http.MethodPost {
		req.Header.Set("Idempotency-Key", key)
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
	return pages(func(cursor string) ([]store.Key, string, error) {
		page, err := c.KeyPage(ctx, cursor, 1000)
		return page.Keys, page.Next, err
	})
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
	err = c.call(ctx, "POST", "/keys", nil, webapi.NewKey{CreateKey: k, LifeSeconds: wholeSeconds(k.Life)}, &made)
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

// pages goes through a list that get returns a page of, and the cursor of the next one.
// The list is not nil.
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

// pageSize is how many of a list are asked for at once.
const pageSize = "1000"

// Users returns the users that the asker may see, by name.
func (c *Client) Users(ctx context.Context) ([]webapi.User, error) {
	return pages(func(cursor string) ([]webapi.User, string, error) {
		var list webapi.UserList
		err := c.call(ctx, "GET", "/users"+query("cursor", cursor, "limit", pageSize), nil, nil, &list)
		return list.Users, list.Next, err
	})
}

// User finds a user by name or id.
func (c *Client) User(ctx context.Context, name string) (u webapi.User, err error) {
	return u, c.ofUser(ctx, "GET", name, nil, nil, &u)
}

func (c *Client) ofUser(ctx context.Context, method, name string, header http.Header, in any, u *webapi.User) error {
	if err := named("user", name); err != nil {
		return err
	}
	return c.call(ctx, method, "/users/"+segment(name), header, in, u)
}

// CreateUser makes a user.
func (c *Client) CreateUser(ctx context.Context, u ops.CreateUser) (made webapi.User, err error) {
	err = c.call(ctx, "POST", "/users", nil, u, &made)
	return made, err
}

// EditUser changes what a user may do. With e.Match that is done only to one of these
// revisions (webapi.User.Revision). e.Name is not used.
func (c *Client) EditUser(ctx context.Context, name string, e ops.EditUser) (u webapi.User, err error) {
	return u, c.ofUser(ctx, "PATCH", name, ifMatch(e.Match), e, &u)
}

// Tokens returns the tokens that the asker may see, newest first, of one service or ("")
// of all.
func (c *Client) Tokens(ctx context.Context, user string) ([]store.Token, error) {
	return pages(func(cursor string) ([]store.Token, string, error) {
		var list webapi.TokenList
		err := c.call(ctx, "GET", "/tokens"+query("user", user, "cursor", cursor, "limit", pageSize), nil, nil, &list)
		return list.Tokens, list.Next, err
	})
}

// CreateToken makes a token of a service. Its life is rounded up to whole seconds.
func (c *Client) CreateToken(ctx context.Context, t ops.CreateToken) (made ops.TokenCreated, err error) {
	err = c.call(ctx, "POST", "/tokens", nil, webapi.NewToken{CreateToken: t, LifeSeconds: wholeSeconds(t.Life)}, &made)
	return made, err
}

// RevokeToken makes a token useless at once.
func (c *Client) RevokeToken(ctx context.Context, id string) (t store.Token, err error) {
	if err := named("token", id); err != nil {
		return t, err
	}
	err = c.call(ctx, "POST", "/tokens/"+segment(id)+"/revoke", nil, nil, &t)
	return t, err
}

// wholeSeconds rounds a life up, nil for none.
func wholeSeconds(d time.Duration) *int64 {
	if d == 0 {
		return nil
	}
	s := int64((d + time.Second - 1) / time.Second)
	return &s
}

// DeleteUser deletes a user, by name or id, without devices and keys.
func (c *Client) DeleteUser(ctx context.Context, name string) (u webapi.User, err error) {
	return u, c.ofUser(ctx, "DELETE", name, nil, nil, &u)
}

// DNS returns everything that is set about names.
func (c *Client) DNS(ctx context.Context) (i ops.DNSInfo, err error) {
	err = c.call(ctx, "GET", "/dns", nil, nil, &i)
	return i, err
}

// EditDNS changes what is set about names, and returns all of it: if match is not nil,
// only one of these revisions (ops.DNSInfo.Revision).
func (c *Client) EditDNS(ctx context.Context, e ops.DNSEdit, match []string) (i ops.DNSInfo, err error) {
	err = c.call(ctx, "PATCH", "/dns", ifMatch(match), e, &i)
	return i, err
}

// PreviewName says what a name will answer. From is a device's name, address or id.
func (c *Client) PreviewName(ctx context.Context, q ops.PreviewQuery) (p ops.Preview, err error) {
	err = c.call(ctx, "GET", "/dns/preview"+query("name", q.Name, "type", q.Type, "from", q.From), nil, nil, &p)
	return p, err
}

// Relays returns all relays, the server's own first.
func (c *Client) Relays(ctx context.Context) ([]ops.RelayInfo, error) {
	return pages(func(cursor string) ([]ops.RelayInfo, string, error) {
		var list webapi.RelayList
		err := c.call(ctx, "GET", "/relays"+query("cursor", cursor, "limit", pageSize), nil, nil, &list)
		return list.Relays, list.Next, err
	})
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

// FIPS says whether the server is in FIPS 140-3 mode.
func (c *Client) FIPS(ctx context.Context) (f ops.FIPS, err error) {
	err = c.call(ctx, "GET", "/network/fips", nil, nil, &f)
	return f, err
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

// CheckPolicy says what would come of a policy, or what is wrong with it, and changes
// nothing. match is as of SetPolicy. All that is wrong is in *webapi.Problem.
func (c *Client) CheckPolicy(ctx context.Context, text string, match []string) (r ops.PolicyCheck, err error) {
	err = c.call(ctx, "POST", "/policy/check", ifMatch(match), webapi.NewPolicy{Text: text}, &r)
	return r, err
}

// CanReach says whether one may reach another.
func (c *Client) CanReach(ctx context.Context, q ops.AccessQuery) (a ops.Access, err error) {
	err = c.call(ctx, "GET", "/policy/can"+query("from", q.From, "to", q.To), nil, nil, &a)
	return a, err
}

// PolicyHistory lists the policies that were in force, the newest first.
func (c *Client) PolicyHistory(ctx context.Context) ([]store.PolicyRevision, error) {
	var list webapi.PolicyHistory
	err := c.call(ctx, "GET", "/policy/history", nil, nil, &list)
	return list.Policies, err
}

// FormerPolicy returns one of them as it was written.
func (c *Client) FormerPolicy(ctx context.Context, number int) (p ops.PolicyText, err error) {
	err = c.call(ctx, "GET", "/policy/history/"+strconv.Itoa(number), nil, nil, &p)
	return p, err
}

// RevertPolicy puts one of them into force again. match is as of SetPolicy.
func (c *Client) RevertPolicy(ctx context.Context, number int, match []string) (p ops.PolicyText, err error) {
	err = c.call(ctx, "POST", "/policy/revert", ifMatch(match), webapi.Revert{Number: number}, &p)
	return p, err
}

// Audit returns a page of audit records; w.Limit is 1 to 1000.
func (c *Client) Audit(ctx context.Context, w store.AuditFilter) ([]audit.Line, error) {
	page, err := c.AuditPage(ctx, w)
	return page.Records, err
}

// AuditPage is Audit with the cursor of the next page, 0 at the end. With w.Refused a page
// may be short, or empty, and have a next one.
func (c *Client) AuditPage(ctx context.Context, w store.AuditFilter) (page ops.AuditPage, err error) {
	moment := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	cursor, oldest, refused := "", "", ""
	if w.Cursor != 0 {
		cursor = strconv.FormatUint(w.Cursor, 10)
	}
	if w.Oldest {
		oldest = "true"
	}
	if w.Refused {
		refused = "true"
	}
	var list webapi.AuditList
	err = c.call(ctx, "GET", "/audit"+query("since", moment(w.Since), "until", moment(w.Until), "op", w.Op, "user", w.User, "target", w.Target,
		"cursor", cursor, "limit", strconv.Itoa(w.Limit), "oldest", oldest, "refused", refused), nil, nil, &list)
	if err == nil && list.Next != "" {
		page.Next, err = strconv.ParseUint(list.Next, 10, 64)
	}
	page.Records = list.Records
	return page, err
}

// AuditSettings returns what is set about the audit.
func (c *Client) AuditSettings(ctx context.Context) (a ops.AuditSettings, err error) {
	err = c.call(ctx, "GET", "/audit/settings", nil, nil, &a)
	return a, err
}

// EditAudit changes what is set about the audit, and returns all of it.
func (c *Client) EditAudit(ctx context.Context, e ops.EditAudit) (a ops.AuditSettings, err error) {
	err = c.call(ctx, "PATCH", "/audit/settings", ifMatch(e.Match), e, &a)
	return a, err
}

// TrimAudit removes the records of before a time, and what devices claim of then.
func (c *Client) TrimAudit(ctx context.Context, before time.Time) (t ops.AuditTrimmed, err error) {
	err = c.call(ctx, "POST", "/audit/trim", nil, webapi.AuditTrim{Before: before}, &t)
	return t, err
}

// Introductions returns a page of what devices claim; q.Limit is 1 to 1000.
func (c *Client) Introductions(ctx context.Context, q ops.IntroductionQuery) (list ops.IntroductionList, err error) {
	since := ""
	if !q.Since.IsZero() {
		since = q.Since.UTC().Format(time.RFC3339Nano)
	}
	err = c.call(ctx, "GET", "/audit/introductions"+query("device", q.Device, "since", since, "cursor", q.After, "limit", strconv.Itoa(q.Limit)), nil, nil, &list)
	return list, err
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
