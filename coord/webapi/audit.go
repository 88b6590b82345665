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

// AuditHead is where the audit ends, signed. Head is what it is in one word.
type AuditHead struct {
	Seq  uint64     `json:"seq"` // number of the last record, 0 for none
	At   time.Time  `json:"at"`  // when it was signed
	Head audit.Head `json:"head"`
}

func (a *api) audit() {
	s := a.ops
	addAsked(a, operation{"GET", "/audit", "listAudit", "List what was done, the latest first", "audit.read", 0}, "cursor limit since until op user target oldest",
		func(ctx context.Context, who ops.Actor, in *Asked) (AuditList, error) {
			in.Limit = min(in.Limit, maxRecords)
			w := store.AuditFilter{Since: in.Since, Until: in.Until, Op: in.Op, User: in.User, Target: in.Target, Limit: in.Limit, Oldest: in.Oldest}
			if in.Cursor != "" {
				seq, err := strconv.ParseUint(in.Cursor, 10, 63)
				if err != nil || seq == 0 {
					return AuditList{}, ops.Invalid("cursor: want next of the page before")
				}
				w.Cursor = seq
			}
			records, err := s.Audit(ctx, who, w)
			list := AuditList{Records: records}
			if len(records) == in.Limit {
				list.Next = strconv.FormatUint(records[len(records)-1].Seq, 10)
			}
			return list, err
		})
	add(a, operation{"GET", "/audit/head", "getAuditHead", "Show the signed head of the audit, to keep it elsewhere", "audit.read", 0},
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
