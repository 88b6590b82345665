package console

import (
	"bytes"
	"encoding/csv"
	"net/http"
	"strconv"
	"strings"

	"weft/coord/audit"
)

// exportActivity sends what the filter selects, the earliest first: as NDJSON, or as CSV for
// spreadsheets.
func (c *Console) exportActivity(v *visit) error {
	var f actFilter
	w := c.actFilter(v, &f)
	w.Oldest, w.Cursor, w.Limit = true, 0, 0
	kind, suffix, appendLine := "application/x-ndjson", ".ndjson", audit.AppendJSON
	if v.r.URL.Query().Get("format") == "csv" {
		kind, suffix, appendLine = "text/csv", ".csv", appendCSV
	}
	started := false
	var b []byte
	for {
		page, err := c.ops.AuditPage(v.ctx(), v.actor, w)
		if err != nil && !started {
			return err
		}
		b = b[:0]
		if !started {
			started = true
			h := v.w.Header()
			h.Set("Content-Type", kind+"; charset=utf-8")
			h.Set("Content-Disposition", `attachment; filename="weft-audit-`+c.now().UTC().Format("20060102-150405")+suffix+`"`)
			if suffix == ".csv" {
				b = append(b, strings.Join(csvFields, ",")+"\n"...)
			}
		}
		for _, l := range page.Records {
			if err != nil {
				break
			}
			var r audit.Record
			var hash audit.Hash
			if r, hash, err = l.Record(); err == nil {
				b, err = appendLine(b, r, hash)
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

// csvFields are the columns of the file, as NDJSON has them.
var csvFields = []string{"seq", "at", "user", "user_id", "role", "via", "from", "op", "kind", "id", "name", "before", "after", "refused", "count", "hash"}

// appendCSV is audit.AppendJSON as one line of CSV (RFC 4180).
func appendCSV(b []byte, r audit.Record, hash audit.Hash) ([]byte, error) {
	l := audit.LineOf(r, hash)
	fields := []string{
		strconv.FormatUint(l.Seq, 10), l.At, l.User, l.UserID, l.Role, l.Via, l.From, l.Op, l.Kind, l.ID, l.Name,
		string(l.Before), string(l.After), l.Refused, strconv.FormatUint(uint64(l.Count), 10), l.Hash,
	}
	for i := range fields {
		fields[i] = csvCell(fields[i])
	}
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	if err := w.Write(fields); err != nil {
		return nil, err
	}
	w.Flush()
	return append(b, out.Bytes()...), w.Error()
}
