package console

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// The line of round trips on a device's page. The page holds the samples and sends them
// along with the request for the next one, so that the line is drawn here and nothing is
// kept. The script (52-latency.js) asks every few seconds while the page is seen; without
// it every press of the button adds one.

// maxSamples bounds the samples of a line; the oldest make room.
const maxSamples = 60

// latencyView is the round trips between the server's relay and a device.
type latencyView struct {
	Device  deviceView
	Spark   sparkView
	Samples string // for the next request: microseconds, "-" for none, separated by spaces
	Count   int
	Latest  string // "" while there is none
	Relay   string
	Problem string // why there is no latest one
}

// newLatency draws samples, of which a negative one is missing.
func newLatency(d deviceView, samples []time.Duration) *latencyView {
	samples = samples[max(0, len(samples)-maxSamples):]
	view := &latencyView{Device: d, Count: len(samples)}
	var words []string
	var values []float64
	for _, s := range samples {
		if s < 0 {
			words, values = append(words, "-"), append(values, math.NaN())
			continue
		}
		words = append(words, strconv.FormatInt(s.Microseconds(), 10))
		values = append(values, float64(s))
	}
	view.Samples = strings.Join(words, " ")
	view.Spark = spark("Round trip to "+d.Name, values, func(f float64) string { return latencyText(time.Duration(f)) })
	if n := len(samples); n > 0 && samples[n-1] >= 0 {
		view.Latest = latencyText(samples[n-1])
	}
	return view
}

// samplesOf reads the samples of a form; what is none is left out.
func samplesOf(text string) (list []time.Duration) {
	for _, word := range strings.Fields(cut(text, maxSamples*12)) {
		if word == "-" {
			list = append(list, -1)
		} else if n, err := strconv.ParseInt(word, 10, 64); err == nil && n >= 0 && n <= time.Minute.Microseconds() {
			list = append(list, time.Duration(n)*time.Microsecond)
		}
	}
	return list[max(0, len(list)-maxSamples):]
}
