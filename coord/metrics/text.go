package metrics

import (
	"strconv"
	"strings"
)

// A Collector appends metrics. It may be called from several goroutines at a time.
type Collector func(*text)

// text is metrics in Prometheus' text format, version 0.0.4.
type text struct{ b []byte }

// kind is what a metric counts.
type kind string

const (
	gauge   kind = "gauge"   // goes up and down
	counter kind = "counter" // goes up only
)

// head begins a metric. Its values follow, and nothing else in between.
func (t *text) head(name string, k kind, help string) {
	help = strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help)
	t.b = append(t.b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+string(k)+"\n"...)
}

// value is one number of a metric, with pairs of labels and their values.
func (t *text) value(name string, v float64, labels ...string) {
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
	t.b = append(t.b, " "+number(v)+"\n"...)
}

var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// number is how a number is written.
func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
