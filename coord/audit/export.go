package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Schema names the lines that AppendJSON writes. Fields are added, never changed.
const Schema = "audit/1"

const timeFormat = "2006-01-02T15:04:05.000Z07:00" // RFC 3339

// Line is the JSON form of a record, in exports (one a line, NDJSON) and in answers of the
// API. Empty fields are present.
type Line struct {
	Schema  string          `json:"schema"`
	Seq     uint64          `json:"seq"`
	At      string          `json:"at" doc:"when it was done; for refusals, the beginning of the minute in which they were counted"`
	User    string          `json:"user"`
	UserID  string          `json:"user_id"`
	Role    string          `json:"role"`
	Via     string          `json:"via"`
	From    string          `json:"from"`
	Op      string          `json:"op"`
	Kind    string          `json:"kind"`
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	Before  json.RawMessage `json:"before"`
	After   json.RawMessage `json:"after"`
	Refused string          `json:"refused"`
	Count   uint32          `json:"count" doc:"how many refusals of the same kind the record stands for; 1 for other records"`
	Hash    string          `json:"hash"`
}

// LineOf returns the line of a record and its hash.
func LineOf(r Record, h Hash) Line {
	return Line{
		Schema: Schema, Seq: r.Seq, At: r.At.UTC().Format(timeFormat), User: r.User, UserID: r.UserID, Role: r.Role, Via: r.Via, From: r.From,
		Op: r.Op, Kind: r.Kind, ID: r.ID, Name: r.Name, Before: r.Before, After: r.After, Refused: r.Refused, Count: r.Count, Hash: h.String(),
	}
}

// Record is the inverse of LineOf.
func (l Line) Record() (Record, Hash, error) {
	at, err := time.Parse(time.RFC3339, l.At)
	if err != nil {
		return Record{}, Hash{}, fmt.Errorf("read audit record %d: %w", l.Seq, err)
	}
	r := Record{
		Seq: l.Seq, At: at.UTC(), User: l.User, UserID: l.UserID, Role: l.Role, Via: l.Via, From: l.From,
		Op: l.Op, Kind: l.Kind, ID: l.ID, Name: l.Name, Before: l.Before, After: l.After, Refused: l.Refused, Count: l.Count,
	}
	for _, v := range []*json.RawMessage{&r.Before, &r.After} {
		if string(*v) == "null" {
			*v = nil
		}
	}
	var h Hash
	if n, err := hex.Decode(h[:], []byte(l.Hash[:min(len(l.Hash), 2*len(h))])); err != nil || n != len(h) {
		return Record{}, Hash{}, fmt.Errorf("read audit record %d: %q is not a hash", l.Seq, l.Hash)
	}
	return r, h, nil
}

// AppendJSON appends the record and its hash as one line of NDJSON, with its line feed.
// Unprintable characters are escaped, so the texts of a record can neither break the line nor
// send control sequences to a terminal.
func AppendJSON(b []byte, r Record, h Hash) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // Before and After are the recorded bytes
	if err := e.Encode(LineOf(r, h)); err != nil {
		return nil, fmt.Errorf("export audit record %d: %w", r.Seq, err)
	}
	return append(append(b, escape(bytes.TrimSuffix(out.Bytes(), []byte("\n")))...), '\n'), nil
}

// syslogID is the SD-ID of our structured data. RFC 5424 wants an enterprise number behind
// the @; we have none, so this is 32473, which RFC 5612 reserves for documentation.
const syslogID = "weft@32473"

// AppendSyslog appends the record and its hash as a message of RFC 5424, all fields as
// structured data, and a line feed. host is the HOSTNAME. The facility is "log audit" (13);
// the severity is warning for refusals and informational for other records. Because of Before
// and After a message can have 100 KB: over UDP a receiver may truncate it, so send it over
// TCP or TLS.
func AppendSyslog(b []byte, r Record, h Hash, host string) []byte {
	const facility, warning, informational = 13, 4, 6
	severity := informational
	if r.Refused != "" {
		severity = warning
	}
	b = fmt.Appendf(b, "<%d>1 %s ", facility*8+severity, r.At.UTC().Format(timeFormat))
	b = append(appendWord(b, host, 255), " weft-server - "...)
	b = append(appendWord(b, r.Op, MaxOp), " ["+syslogID...)
	for _, p := range [...]struct{ name, value string }{
		{"seq", strconv.FormatUint(r.Seq, 10)}, {"user", r.User}, {"user_id", r.UserID}, {"role", r.Role}, {"via", r.Via}, {"from", r.From},
		{"kind", r.Kind}, {"id", r.ID}, {"name", r.Name}, {"before", string(r.Before)}, {"after", string(r.After)},
		{"refused", r.Refused}, {"count", strconv.FormatUint(uint64(r.Count), 10)}, {"hash", h.String()},
	} {
		if p.value != "" {
			b = append(appendParam(append(append(append(b, ' '), p.name...), `="`...), p.value), '"')
		}
	}
	return append(b, "]\n"...)
}

// appendWord appends a header field: printable ASCII of at most limit bytes, "-" if empty.
func appendWord(b []byte, s string, limit int) []byte {
	start := len(b)
	for i := 0; i < len(s) && i < limit; i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f {
			c = '_'
		}
		b = append(b, c)
	}
	if len(b) == start {
		b = append(b, '-')
	}
	return b
}

// appendParam appends a PARAM-VALUE (RFC 5424 section 6.3.3).
func appendParam(b []byte, s string) []byte {
	for _, r := range s {
		switch {
		case r == '"' || r == '\\' || r == ']':
			b = append(b, '\\', byte(r))
		case unprintable(r):
			b = utf8.AppendRune(b, utf8.RuneError)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}
