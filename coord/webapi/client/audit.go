package client

import (
	"context"
	"strconv"
	"time"

	"weft/coord/audit"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
)

// Audit returns a page of audit records; w.Limit is 1 to 1000.
func (c *Client) Audit(ctx context.Context, w store.AuditFilter) ([]audit.Line, error) {
	page, err := c.AuditPage(ctx, w)
	return page.Records, err
}

// AuditPage is Audit with the cursor of the next page, 0 at the end. With w.Refused or w.Via a
// page may be short or empty although a next one follows.
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
		"cursor", cursor, "limit", strconv.Itoa(w.Limit), "oldest", oldest, "refused", refused, "via", w.Via), nil, nil, &list)
	if err == nil && list.Next != "" {
		page.Next, err = strconv.ParseUint(list.Next, 10, 64)
	}
	page.Records = list.Records
	return page, err
}

// AuditSettings returns the settings of the audit.
func (c *Client) AuditSettings(ctx context.Context) (a ops.AuditSettings, err error) {
	err = c.call(ctx, "GET", "/audit/settings", nil, nil, &a)
	return a, err
}

// EditAudit changes settings of the audit, and returns all of them.
func (c *Client) EditAudit(ctx context.Context, e ops.EditAudit) (a ops.AuditSettings, err error) {
	err = c.call(ctx, "PATCH", "/audit/settings", ifMatch(e.Match), e, &a)
	return a, err
}

// TrimAudit removes the records and the claims of devices from before a time.
func (c *Client) TrimAudit(ctx context.Context, before time.Time) (t ops.AuditTrimmed, err error) {
	err = c.call(ctx, "POST", "/audit/trim", nil, webapi.AuditTrim{Before: before}, &t)
	return t, err
}

// Introductions returns a page of the claims of devices; q.Limit is 1 to 1000.
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

// VerifyAudit checks the whole audit, also against a head that was saved elsewhere (nil
// for none). Faults of the audit are in the report.
func (c *Client) VerifyAudit(ctx context.Context, outside *audit.Head) (r ops.AuditReport, err error) {
	head := ""
	if outside != nil {
		head = outside.String()
	}
	err = c.call(ctx, "GET", "/audit/verify"+query("head", head), nil, nil, &r)
	return r, err
}
