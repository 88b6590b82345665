package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"
)

// Record is one event: who did what to which thing, how the request came in, and the values
// before and after.
type Record struct {
	Seq  uint64    // 1 for the first of a network, without gaps
	At   time.Time // UTC, whole milliseconds
	User string    // name at that time; "" if there was no user, or an unknown one

	UserID string
	Role   string
	Via    string // one of Console, API, CLI, Node, System
	From   string // remote address, "" for none

	Op             string // "device.rename": 1 to 32 of a-z, 0-9, ".", "-", "_"
	Kind, ID, Name string // of the target, each "" for none

	Before, After json.RawMessage // compact JSON (see JSON), nil for none

	Refused string // why it was not done, "" when it was
	Count   uint32 // how many equal refusals the record stands for; 1 for other records
}

// The values of Record.Via: how a request came in.
const (
	Console = "console"
	API     = "api"
	CLI     = "cli"
	Node    = "node"
	System  = "system"
)

var ways = []string{Console, API, CLI, Node, System}

const (
	// MaxText bounds every text of a record, in bytes.
	MaxText = 255
	// MaxValue bounds Before and After, in bytes.
	MaxValue = 16 << 10
	// MaxOp bounds Op, in bytes: it is the MSGID in syslog, which has at most 32.
	MaxOp = 32
	// MaxEncoding bounds an encoding, in bytes.
	MaxEncoding = fixed + texts*(1+MaxText) + 2*(2+MaxValue)

	version = 1
	fixed   = 1 + 8 + 8 + 4
)

// The texts of a record in the order in which they are encoded.
const (
	textUser = iota
	textUserID
	textRole
	textVia
	textFrom
	textOp
	textKind
	textID
	textName
	textRefused
	texts
)

func (r *Record) texts() [texts]*string {
	return [texts]*string{&r.User, &r.UserID, &r.Role, &r.Via, &r.From, &r.Op, &r.Kind, &r.ID, &r.Name, &r.Refused}
}

// maxAt is the first millisecond of the year 10000, which RFC 3339 cannot express.
const maxAt = 253402300800_000

var errRecord = errors.New("not an audit record")

// Encode appends the record's encoding to b. It fails if a text is too long or has unprintable
// characters, so call Clean first if users, devices or providers supplied any of the texts.
func (r *Record) Encode(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, version)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(r.At.UnixMilli()))
	b = binary.BigEndian.AppendUint32(b, r.Count)
	for _, s := range r.texts() {
		if len(*s) > MaxText {
			return nil, fmt.Errorf("encode audit record %s: a text of %d bytes, at most %d", r.Op, len(*s), MaxText)
		}
		b = append(append(b, byte(len(*s))), *s...)
	}
	for _, v := range []json.RawMessage{r.Before, r.After} {
		if len(v) > MaxValue {
			return nil, fmt.Errorf("encode audit record %s: a value of %d bytes, at most %d", r.Op, len(v), MaxValue)
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
	}
	// Encode never makes what Decode would refuse.
	if _, err := parse(b[start:]); err != nil {
		return nil, fmt.Errorf("encode audit record %s: %w", r.Op, err)
	}
	return b, nil
}

// Decode returns the record of an encoding. It keeps nothing of b.
func Decode(b []byte) (Record, error) {
	v, err := parse(b)
	if err != nil {
		return Record{}, err
	}
	r := Record{Seq: v.seq, At: time.UnixMilli(v.at).UTC(), Count: v.count}
	for i, s := range r.texts() {
		*s = string(v.text[i])
	}
	if len(v.before) > 0 {
		r.Before = bytes.Clone(v.before)
	}
	if len(v.after) > 0 {
		r.After = bytes.Clone(v.after)
	}
	return r, nil
}

// view is a decoded record whose parts still point into the encoding.
type view struct {
	seq           uint64
	at            int64
	count         uint32
	text          [texts][]byte
	before, after []byte
}

func parse(b []byte) (v view, err error) {
	wrong := func(what string) (view, error) { return view{}, fmt.Errorf("%w: %s", errRecord, what) }
	if len(b) < fixed {
		return wrong("it is cut off")
	}
	if b[0] != version {
		return wrong(fmt.Sprintf("it has version %d, want %d", b[0], version))
	}
	v.seq = binary.BigEndian.Uint64(b[1:])
	v.at = int64(binary.BigEndian.Uint64(b[9:]))
	v.count = binary.BigEndian.Uint32(b[17:])
	switch {
	case v.seq == 0 || v.seq > math.MaxInt64: // SQL integers are signed
		return wrong("its number is out of range")
	case v.at <= 0 || v.at >= maxAt:
		return wrong("its time is out of range")
	case v.count == 0:
		return wrong("its count is 0")
	}
	b = b[fixed:]
	for i := range v.text {
		if len(b) < 1 || len(b)-1 < int(b[0]) {
			return wrong("it is cut off")
		}
		v.text[i], b = b[1:1+int(b[0])], b[1+int(b[0]):]
		if !printable(v.text[i]) {
			return wrong("a text has unprintable characters")
		}
	}
	for _, p := range []*[]byte{&v.before, &v.after} {
		if len(b) < 2 {
			return wrong("it is cut off")
		}
		n := int(binary.BigEndian.Uint16(b))
		if n > MaxValue {
			return wrong("a value is too long")
		}
		if len(b)-2 < n {
			return wrong("it is cut off")
		}
		*p, b = b[2:2+n], b[2+n:]
		if n > 0 && !compact(*p) {
			return wrong("a value is not compact JSON")
		}
	}
	switch {
	case len(b) > 0:
		return wrong("other bytes follow it")
	case !validOp(v.text[textOp]):
		return wrong("its operation is not a valid name")
	case !slices.Contains(ways, string(v.text[textVia])):
		return wrong("the way by which the request came in is unknown")
	}
	return v, nil
}

func validOp(s []byte) bool {
	if len(s) == 0 || len(s) > MaxOp {
		return false
	}
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// unprintable reports whether a character is forbidden in texts, and allowed in JSON only if
// escaped: these characters break lines, move the cursor, or change how others look. The list
// is written out because version 1 of the encoding fixes it: the tables of package unicode
// grow, and would make old records invalid.
func unprintable(r rune) bool {
	switch {
	case r < 0xa0:
		return r < ' ' || r >= 0x7f
	case r < 0x200b:
		return r == 0xad || r == 0x61c || r == 0x180e
	}
	return r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2060 && r <= 0x206f || // marks, line ends, bidi
		r == 0xfeff || r >= 0xfff9 && r <= 0xfffb || r >= 0xe0000 && r <= 0xe007f
}

// printable reports whether b is UTF-8 of printable characters.
func printable(b []byte) bool {
	for i := 0; i < len(b); {
		if c := b[i]; c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 || unprintable(r) {
			return false
		}
		i += n
	}
	return true
}

// compact reports whether b is JSON of printable characters without white space
// between its parts.
func compact(b []byte) bool {
	if !printable(b) || !json.Valid(b) {
		return false
	}
	quoted := false
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '"':
			quoted = !quoted
		case quoted && b[i] == '\\':
			i++
		case !quoted && b[i] == ' ':
			return false
		}
	}
	return true
}

// JSON returns v as JSON for Before and After: compact, with sorted and unique keys, and with
// unprintable characters escaped. Equal values give equal bytes, and null gives nil. A value
// longer than MaxValue is replaced by its size and SHA-256.
func JSON(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("value for the audit: %w", err)
	}
	if string(b) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var any any
	if err := d.Decode(&any); err != nil {
		return nil, fmt.Errorf("value for the audit: %w", err)
	}
	if b, err = json.Marshal(any); err != nil {
		return nil, fmt.Errorf("value for the audit: %w", err)
	}
	return bounded(escape(b)), nil
}

// bounded replaces JSON that is longer than MaxValue by its size and SHA-256.
func bounded(b []byte) json.RawMessage {
	if len(b) <= MaxValue {
		return b
	}
	sum := sha256.Sum256(b)
	return fmt.Appendf(nil, `{"omitted_bytes":%d,"sha256":"%s"}`, len(b), hex.EncodeToString(sum[:]))
}

// escape writes the unprintable characters of compact, valid JSON as \uXXXX.
func escape(b []byte) []byte {
	if printable(b) {
		return b
	}
	out := make([]byte, 0, len(b)+32)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			out = utf8.AppendRune(out, utf8.RuneError)
		case !unprintable(r):
			out = append(out, b[:n]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		b = b[n:]
	}
	return out
}

// Clean makes a record fit for Encode: it truncates long texts and replaces unprintable
// characters, so that nobody can keep an action out of the audit by an odd name.
func (r *Record) Clean() {
	for _, s := range r.texts() {
		*s = cleanText(*s)
	}
	r.Before, r.After = cleanValue(r.Before), cleanValue(r.After)
	r.At = time.UnixMilli(min(max(r.At.UnixMilli(), 1), maxAt-1)).UTC()
	r.Count = max(r.Count, 1)
}

func cleanText(s string) string {
	if len(s) <= MaxText && printable([]byte(s)) {
		return s
	}
	const more = "…"
	out := make([]byte, 0, MaxText)
	end := 0 // of the longest part after which "…" still fits
	for _, r := range s {
		if unprintable(r) {
			r = utf8.RuneError
		}
		if len(out)+utf8.RuneLen(r) > MaxText {
			return string(append(out[:end], more...))
		}
		if out = utf8.AppendRune(out, r); len(out) <= MaxText-len(more) {
			end = len(out)
		}
	}
	return string(out)
}

func cleanValue(b json.RawMessage) json.RawMessage {
	if len(b) == 0 {
		return nil
	}
	if len(b) <= MaxValue && compact(b) {
		return b
	}
	v, err := JSON(b)
	if err != nil { // not JSON: keep it as a string, so that it is not lost
		v, _ = JSON(string(b)) // strings always marshal
	}
	return v
}
