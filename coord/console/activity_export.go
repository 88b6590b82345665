package console

import (
	"net/http"

	"weft/coord/audit"
)

// exportActivity sends what the filter selects as NDJSON, the earliest first.
func (c *Console) exportActivity(v *visit) error {
	var view activityView
	w, err := c.actFilter(v, &view)
	if err != nil {
		return err
	}
	w.Oldest, w.Cursor, w.Limit = true, 0, 0
	started := false
	var b []byte
	for {
		page, err := c.ops.AuditPage(v.ctx(), v.actor, w)
		if err != nil && !started {
			return err
		}
		if !started {
			started = true
			h := v.w.Header()
			h.Set("Content-Type", "application/x-ndjson; charset=utf-8")
			h.Set("Content-Disposition", `attachment; filename="weft-audit-`+c.now().UTC().Format("20060102-150405")+`.ndjson"`)
		}
		b = b[:0]
		for _, l := range page.Records {
			if err != nil {
				break
			}
			var r audit.Record
			var hash audit.Hash
			if r, hash, err = l.Record(); err == nil {
				b, err = audit.AppendJSON(b, r, hash)
			}
		}
		if err == nil {
			_, err = v.w.Write(b)
		}
		if err != nil {
			c.log.Info("an export of the audit was interrupted", "err", err)
			panic(http.ErrAbortHandler) // a file that ends early must not look complete
		}
		if w.Cursor = page.Next; w.Cursor == 0 {
			return nil
		}
	}
}
