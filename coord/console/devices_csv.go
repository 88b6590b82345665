package console

import (
	"encoding/csv"
	"net/http"
	"strconv"
	"strings"
	"time"

	"weft/coord/ops"
)

// exportDevices sends what the filter selects as CSV (RFC 4180), in the order of the list.
func (c *Console) exportDevices(v *visit) error {
	query := deviceQuery(v.r.URL.Query())
	if _, err := ops.ParseDeviceFilter(query.Filter); err != nil {
		return errBadForm
	}
	w := csv.NewWriter(v.w)
	started := false
	start := func() error {
		started = true
		h := v.w.Header()
		h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
		h.Set("Content-Disposition", `attachment; filename="weft-devices-`+c.now().UTC().Format("20060102-150405")+`.csv"`)
		if v.r.Method == http.MethodHead {
			return nil
		}
		return w.Write([]string{"name", "fqdn", "status", "last_seen", "owner", "tags", "ipv4", "ipv6", "relay", "public_address", "system", "version", "joined", "certificate_expires", "ephemeral", "id"})
	}
	err := c.ops.EachDeviceOf(v.ctx(), v.actor, query, func(d ops.Device) error {
		if !started {
			if err := start(); err != nil {
				return err
			}
		}
		if v.r.Method == http.MethodHead {
			return nil
		}
		return w.Write(csvRow(d))
	})
	if err == nil && !started {
		err = start()
	}
	if err != nil && !started {
		return err
	}
	if err == nil {
		w.Flush()
		err = w.Error()
	}
	if err != nil {
		c.log.Info("an export of devices was interrupted", "err", err)
		panic(http.ErrAbortHandler) // a file that ends early must not look complete
	}
	return nil
}

func exportPath(q ops.DeviceQuery) string {
	q.Offset = 0
	return withQuery("/devices/export", q)
}

func csvRow(d ops.Device) []string {
	status := "offline"
	switch {
	case d.Attention != "":
		status = d.Attention
	case d.Online:
		status = "online"
	case d.Unknown:
		status = "unknown"
	}
	row := []string{
		d.Title, d.FQDN, status, csvTime(orZero(d.LastSeen)), d.User, strings.Join(d.Tags, " "), addrText(d.IPv4), addrText(d.IPv6), d.Relay, d.Address,
		d.OS, d.Software, csvTime(d.Created), csvTime(d.Expires), strconv.FormatBool(d.Ephemeral), d.ID.String(),
	}
	for i, cell := range row {
		row[i] = csvCell(cell)
	}
	return row
}

func csvTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
