// Package promtext writes metrics in Prometheus' text format, version 0.0.4.
//
// Not for embedders: nodes, servers and relays share it.
package promtext

import (
	"math"
	"strconv"
	"strings"
)

// ContentType is that of what a Text holds.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Kind is what a metric counts.
type Kind string

// The kinds of metric.
const (
	Gauge     Kind = "gauge"   // goes up and down
	Counter   Kind = "counter" // goes up only
	Histogram Kind = "histogram"
)

// Text is metrics. The zero value has none; it is for one goroutine at a time.
type Text struct{ b []byte }

// Bytes is what was written so far, until the next call.
func (t *Text) Bytes() []byte { return t.b }

// Head begins a metric. Its values follow, and nothing else in between.
func (t *Text) Head(name string, k Kind, help string) {
	help = strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help)
	t.b = append(t.b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+string(k)+"\n"...)
}

// Value is one number of a metric, with pairs of labels and their values.
func (t *Text) Value(name string, v float64, labels ...string) {
	t.b = append(t.b, name...)
	for i := 0; i < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		t.b = append(t.b, sep+labels[i]+`="`+escaper.Replace(labels[i+1])+`"`...)
	}
	if len(labels) > 0 {
		t.b = append(t.b, '}')
	}
	t.b = append(t.b, " "+Number(v)+"\n"...)
}

var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// Number is how a number is written: whole ones without an exponent, as people read them.
func Number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
