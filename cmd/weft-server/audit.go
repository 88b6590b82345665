package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/audit"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi/client"
	"weft/overlay/cause"
)

func auditCmd() *cobra.Command {
	cmd := group("audit", "Show, check and export who did what", auditListCmd(), auditVerifyCmd(), auditExportCmd(), auditHeadCmd(), auditTrimCmd(), auditRetentionCmd(), auditIntroductionsCmd())
	cmd.Long = `Show, check and export who did what: every change, sign-in, refusal and use of a
token is one record. A person who can write to the database cannot change or remove
a record unnoticed. A person who also has the server's keys can do so, unless a
head of the audit is saved elsewhere: see weft-server audit head.`
	return cmd
}

// auditQuery adds the flags that select records. of returns the filter after cobra has parsed
// the flags.
func auditQuery(cmd *cobra.Command, limit int, limitHelp string) (of func() (store.AuditFilter, error)) {
	var since, until string
	var w store.AuditFilter
	f := cmd.Flags()
	f.StringVar(&since, "since", "", "only what was done at this time or later: 24h, 7d, 2026-11-29 or 2026-11-29T18:00:00Z")
	f.StringVar(&until, "until", "", "only what was done before")
	f.StringVar(&w.Op, "op", "", "only operations with this name, or whose name begins with it: device.rename, device.")
	f.StringVar(&w.User, "user", "", "only what this user did: name or id")
	f.StringVar(&w.Target, "device", "", "only what was done to this device, key, relay or user: name or id")
	f.BoolVar(&w.Refused, "refused", false, "only what was refused")
	f.StringVar(&w.Via, "via", "", "only what came through this interface: console, api, cli, node or system")
	f.IntVar(&w.Limit, "limit", limit, limitHelp)
	for _, name := range []string{"since", "until", "op", "user", "device", "refused", "via", "limit"} {
		f.SetAnnotation(name, noEnv, nil)
	}
	return func() (_ store.AuditFilter, err error) {
		now := time.Now()
		if w.Since, err = moment("--since", since, now); err != nil {
			return w, err
		}
		if w.Until, err = moment("--until", until, now); err != nil {
			return w, err
		}
		if w.Limit < 0 {
			return w, usagef("--limit %d: want 0, for no limit, or more", w.Limit)
		}
		return w, nil
	}
}

// moment parses a time: an age such as 24h, a day in the local time zone, or RFC 3339. It returns
// the zero time for "".
func moment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if d, err := parseSpan(s); err == nil {
		return now.Add(-d), nil
	}
	return time.Time{}, usagef("%s %q: want how long ago, such as 24h or 7d, a day, such as 2026-11-29, or a time, such as 2026-11-29T18:00:00Z", flag, s)
}

// auditPage is how many records one request to the API asks for.
const auditPage = 1000

// eachAudit calls f with the wanted records, page by page.
func eachAudit(ctx context.Context, a *client.Client, w store.AuditFilter, f func(audit.Line) error) error {
	for left := w.Limit; ; {
		w.Limit = auditPage
		if left > 0 {
			w.Limit = min(left, auditPage)
		}
		page, err := a.AuditPage(ctx, w)
		if err != nil {
			return err
		}
		for _, l := range page.Records {
			if err := f(l); err != nil {
				return err
			}
		}
		if w.Cursor = page.Next; w.Cursor == 0 || left > 0 && left <= len(page.Records) {
			return nil
		}
		left -= min(left, len(page.Records))
	}
}

// auditListCmd is no apiVerb: there may be very many records, and with --json no table is made of
// them.
func auditListCmd() *cobra.Command {
	var asJSON *bool
	var query func() (store.AuditFilter, error)
	cmd := &cobra.Command{
		Use:   "list [--since T] [--until T] [--op OP] [--user U] [--device D] [--refused] [--via WAY] [--limit N]",
		Short: "List what was done, the latest first",
		Long: `List what was done, the latest first. Equal refusals within a minute are
one record, with their number and the beginning of that minute.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := query()
			if err != nil {
				return err
			}
			return withServer(cmd, func(ctx context.Context, a *client.Client) error {
				lines := []audit.Line{}
				err := eachAudit(ctx, a, w, func(l audit.Line) error { lines = append(lines, l); return nil })
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "audit-list/1", map[string]any{"records": lines})
				}
				rows := [][]string{{"NO", "TIME", "WHO", "VIA", "FROM", "WHAT", "TO", "CHANGE"}}
				for _, l := range lines {
					rows = append(rows, []string{strconv.FormatUint(l.Seq, 10), auditTime(l.At), l.User, l.Via, l.From, l.Op, auditTarget(l), auditChange(l)})
				}
				_, err = fmt.Fprint(cmd.OutOrStdout(), table(rows))
				return err
			})
		},
	}
	query = auditQuery(cmd, 100, "how many at most; 0 for all")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func auditTime(s string) string {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return s
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func auditTarget(l audit.Line) string {
	name := l.Name
	if name == "" {
		name = l.ID
	}
	return strings.TrimSpace(l.Kind + " " + name)
}

// auditChange says in a few words what a record changed.
func auditChange(l audit.Line) string {
	s := ""
	b, a := differing(l.Before, l.After)
	switch before, after := short(b), short(a); {
	case l.Refused != "":
		s = "refused: " + l.Refused
	case before != "" && after != "":
		s = before + " -> " + after
	default:
		s = before + after
	}
	if l.Count > 1 {
		s += fmt.Sprintf(" (%d times)", l.Count)
	}
	return s
}

// differing returns two JSON objects without the fields that are the same in both. It returns
// values that are not objects unchanged.
func differing(before, after json.RawMessage) (was, is json.RawMessage) {
	var b, a map[string]json.RawMessage
	if json.Unmarshal(before, &b) != nil || json.Unmarshal(after, &a) != nil || b == nil || a == nil {
		return before, after
	}
	for name, v := range b {
		if other, ok := a[name]; ok && bytes.Equal(v, other) {
			delete(b, name)
			delete(a, name)
		}
	}
	was, err := json.Marshal(b)
	if err != nil {
		return before, after
	}
	if is, err = json.Marshal(a); err != nil {
		return before, after
	}
	return was, is
}

// short truncates a value for a table.
func short(b []byte) string {
	const most = 60
	s := string(b)
	if s == "null" {
		return ""
	}
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func auditExportCmd() *cobra.Command {
	var format string
	var asJSON *bool
	var query func() (store.AuditFilter, error)
	cmd := &cobra.Command{
		Use:   "export [--format ndjson|rfc5424] [--since T] [--until T] [--op OP] [--user U] [--device D] [--refused] [--via WAY] [--limit N]",
		Short: "Write the records for other programs, the earliest first",
		Long: `Write the records for other programs, one a line, the earliest first: as JSON
(schema audit/1), or as syslog messages of RFC 5424.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := query()
			if err != nil {
				return err
			}
			if *asJSON && format != "ndjson" {
				return usagef("--json and --format %s exclude each other", format)
			}
			if format != "ndjson" && format != "rfc5424" {
				return usagef("--format %q: want ndjson or rfc5424", format)
			}
			host, err := os.Hostname()
			if err != nil {
				host = "" // AppendSyslog writes "-"
			}
			w.Oldest = true
			return withServer(cmd, func(ctx context.Context, a *client.Client) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				var b []byte
				err := eachAudit(ctx, a, w, func(l audit.Line) error {
					r, h, err := l.Record()
					if err != nil {
						return err
					}
					if format == "rfc5424" {
						b = audit.AppendSyslog(b[:0], r, h, host)
					} else if b, err = audit.AppendJSON(b[:0], r, h); err != nil {
						return err
					}
					_, err = out.Write(b)
					return err
				})
				if err != nil {
					return err
				}
				return out.Flush()
			})
		},
	}
	query = auditQuery(cmd, 0, "how many at most (default all)")
	cmd.Flags().StringVar(&format, "format", "ndjson", "ndjson or rfc5424")
	cmd.Flags().SetAnnotation("format", noEnv, nil)
	asJSON = cli.JSONFlag(cmd) // has no effect, because the output is JSON in any case
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"ndjson", "rfc5424"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func auditVerifyCmd() *cobra.Command {
	var head string
	var outside *audit.Head
	cmd := apiVerb{
		use:   "verify [--head FILE|HEX]",
		short: "Check that no record was changed, removed or moved",
		long: `Check that no record was changed, removed, moved or added without the server, and
that the network's CA signed for the last one. If a record is wrong, print the
first one and exit with 1.

With --head, also compare with what weft-server audit head printed earlier. This
finds records that a person with the CA's key replaced or cut off at the end.`,
		check: func(*cobra.Command, []string) (err error) { outside, err = readHead(head); return err },
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			r, err := c.VerifyAudit(ctx, outside)
			got := answer{schema: "audit-verify/1", object: r, out: auditVerified(r, outside)}
			if r.Fault != nil {
				got.fault = r.Fault
			}
			return got, err
		},
	}.command()
	cmd.Flags().StringVar(&head, "head", "", "a head that was saved elsewhere: a file, or the line that audit head printed")
	cmd.Flags().SetAnnotation("head", noEnv, nil)
	return cmd
}

// auditVerified says which records are as they were written. outside is the head with which they
// were compared, or nil.
func auditVerified(r ops.AuditReport, outside *audit.Head) string {
	said := fmt.Sprintf("records %d to %d are as they were written, and signed for", r.First, r.Last)
	switch {
	case r.Last == 0:
		said = "there are no records yet"
	case r.Last < r.First:
		said = fmt.Sprintf("the records up to %d were removed for their age; there are none after them", r.Last)
	}
	if r.Removed != nil {
		said += "; earlier ones were removed, the last of them on " + r.Removed.Local().Format("2006-01-02 15:04:05") + ", as was signed for then (each time is a record: weft-server audit list --op audit.trim)"
	}
	switch {
	case outside != nil && r.Compared:
		said += "; they fit the head of " + outside.At.Local().Format("2006-01-02 15:04:05")
	case outside != nil:
		said += fmt.Sprintf("; the head is of record %d, which was removed for its age, so it could not be compared: it is this network's, and keep a new one: weft-server audit head", outside.Seq)
	}
	return said
}

// readHead parses the value of --head: the line that audit head printed, or the name of a file
// with that line.
func readHead(s string) (*audit.Head, error) {
	if s == "" {
		return nil, nil
	}
	where := "--head"
	if _, err := hex.DecodeString(s); err != nil || len(s) < 64 { // not hexadecimal, so it is a file name
		b, err := os.ReadFile(s)
		if err != nil {
			return nil, usagef("--head: read %s: %w", s, cause.Of(err))
		}
		s, where = string(b), "--head "+s
	}
	h, err := audit.ParseHead(s)
	if err != nil {
		return nil, usagef("%s: %w", where, err)
	}
	return &h, nil
}

func auditHeadCmd() *cobra.Command {
	return apiVerb{
		use:   "head",
		short: "Print the signed head of the audit, which proves later that no record was replaced",
		long: `Print the signed head of the audit as one line. Save it on another machine, where
nobody with access to this server can change it: weft-server audit verify --head
then finds any change of the records up to now.`,
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			h, err := c.AuditHead(ctx)
			return answer{schema: "audit-head/1", object: map[string]any{"seq": h.Seq, "at": h.At, "head": h.String()}, out: h.String()}, err
		},
	}.command()
}
