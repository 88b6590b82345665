package webapi

import (
	"context"
	"strconv"
	"time"

	"weft/coord/audit"
	"weft/coord/ops"
	"weft/coord/store"
)

// AuditList is one page of audit records.
type AuditList struct {
	Records []audit.Line `json:"records"`
	Next    string       `json:"next"` // cursor of the next page, "" at the end
}

// AuditHead is the signed end of the audit. Head is the same in one word.
type AuditHead struct {
	Seq  uint64     `json:"seq"` // number of the last record, 0 for none
	At   time.Time  `json:"at"`  // when it was signed
	Head audit.Head `json:"head"`
}

// AuditTrim says which records to remove.
type AuditTrim struct {
	Before time.Time `json:"before" required:"true" doc:"remove the records from before this time, which must be at least a day ago"`
}

func (a *api) audit() {
	s := a.ops
	add(a, operation{"GET", "/audit/settings", "getAuditSettings", "Show how long records stay, and which devices report introductions", "audit.read", 0},
		func(_ context.Context, who ops.Actor, _ *struct{}) (ops.AuditSettings, error) {
			return s.AuditSettings(who)
		})
	addSent(a, operation{"PATCH", "/audit/settings", "editAuditSettings", "Set how long records stay, and which devices report introductions", "audit.configure", 0},
		func(ctx context.Context, who ops.Actor, in *SentFor, body ops.EditAudit) (set ops.AuditSettings, err error) {
			if body.Match, err = in.revisions(); err != nil {
				return set, err
			}
			return ops.Do(ctx, s, who, body)
		})
	addSent(a, operation{"POST", "/audit/trim", "trimAudit", "Remove old records and sign a checkpoint in their place", "audit.trim", 0},
		func(ctx context.Context, who ops.Actor, _ *Sent, body AuditTrim) (ops.AuditTrimmed, error) {
			return s.TrimAudit(ctx, who, ops.TrimAudit{Before: body.Before})
		})
	addAsked(a, operation{"GET", "/audit/introductions", "listIntroductions", "List the introductions that devices report, the latest hour first", "audit.read", 0}, "cursor limit since device",
		func(ctx context.Context, who ops.Actor, in *Asked) (ops.IntroductionList, error) {
			return s.Introductions(ctx, who, ops.IntroductionQuery{Device: in.Device, Since: in.Since, After: in.Cursor, Limit: in.Limit})
		})
	addAsked(a, operation{"GET", "/audit", "listAudit", "List what was done, the latest first", "audit.read", 0}, "cursor limit since until op user target refused via oldest",
		func(ctx context.Context, who ops.Actor, in *Asked) (AuditList, error) {
			in.Limit = min(in.Limit, maxRecords)
			w := store.AuditFilter{Since: in.Since, Until: in.Until, Op: in.Op, User: in.User, Target: in.Target, Limit: in.Limit, Refused: in.Refused, Via: in.Via, Oldest: in.Oldest}
			if in.Cursor != "" {
				seq, err := strconv.ParseUint(in.Cursor, 10, 63)
				if err != nil || seq == 0 {
					return AuditList{}, ops.Invalid("cursor: want next of the previous page")
				}
				w.Cursor = seq
			}
			page, err := s.AuditPage(ctx, who, w)
			if err == nil && len(page.Records) == 0 && page.Next == 0 && in.Cursor == "" {
				err = s.AuditNames(ctx, who, w)
			}
			list := AuditList{Records: page.Records}
			if page.Next > 0 {
				list.Next = strconv.FormatUint(page.Next, 10)
			}
			return list, err
		})
	add(a, operation{"GET", "/audit/head", "getAuditHead", "Show the signed head of the audit, to save it elsewhere", "audit.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (AuditHead, error) {
			h, err := s.AuditHead(ctx, who)
			return AuditHead{h.Seq, h.At, h}, err
		})
	addAsked(a, operation{"GET", "/audit/verify", "verifyAudit", "Check that no record was changed, removed or moved", "audit.read", 0}, "head",
		func(ctx context.Context, who ops.Actor, in *Asked) (ops.AuditReport, error) {
			if in.Head == "" {
				return s.VerifyAudit(ctx, who, nil)
			}
			h, err := audit.ParseHead(in.Head)
			if err != nil {
				return ops.AuditReport{}, ops.Invalid("%v", err)
			}
			return s.VerifyAudit(ctx, who, &h)
		})
}
