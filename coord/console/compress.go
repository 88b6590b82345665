package console

import (
	"bytes"
	"compress/gzip"
	"strconv"
	"strings"
	"sync"
)

// compressed are the pages that may be long. A page that shows a secret never is one of
// them: who can have a browser fetch a page with words of their choice in it, and sees how
// long the answers are, reads out what else is in it (BREACH).
var compressed = map[string]bool{"devices": true, "activity": true, "introductions": true, "access": true, "policy": true, "policytests": true, "policytags": true, "policyhistory": true, "people": true}

// worthIt is the length in bytes from which a page is compressed.
const worthIt = 2 << 10

// takesGzip reports whether the client accepts answers compressed by gzip
// (RFC 9110 section 12.5.3).
func (v *visit) takesGzip() bool {
	for part := range strings.SplitSeq(v.r.Header.Get("Accept-Encoding"), ",") {
		coding, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		weight, err := strconv.ParseFloat(q, 32)
		return !ok || err == nil && weight > 0
	}
	return false
}

// packers are fast compressors: each has about 1 MB of tables.
var packers = sync.Pool{New: func() any { return newPacker(gzip.BestSpeed) }}

func newPacker(level int) *gzip.Writer {
	w, err := gzip.NewWriterLevel(nil, level)
	if err != nil {
		panic(err) // a level of ours
	}
	return w
}

// pack compresses b with w.
func pack(w *gzip.Writer, b []byte) []byte {
	var out bytes.Buffer
	w.Reset(&out)
	w.Write(b)
	w.Close() // a buffer takes everything
	return out.Bytes()
}
