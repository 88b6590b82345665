package console

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const sparkWidth, sparkHeight, sparkMost = 120, 24, 120

// sparkView is a row of figures as a line, and in words.
type sparkView struct {
	Width, Height int
	Lines         []string // points of polylines: a figure that is missing breaks the line
	Last          *point
	Text          string
}

type point struct{ X, Y string }

// spark draws values, the oldest first, of which NaN is one that is missing. More than 120
// are drawn as the highest of each neighbourhood. show says a value in words: "12 ms".
func spark(what string, values []float64, show func(float64) string) sparkView {
	v := sparkView{Width: sparkWidth, Height: sparkHeight}
	values = fewer(values, sparkMost)
	low, high, last := math.Inf(1), math.Inf(-1), -1
	for i, f := range values {
		if !finite(f) {
			continue
		}
		low, high, last = min(low, f), max(high, f), i
	}
	if last < 0 {
		v.Text = what + ": nothing measured yet"
		return v
	}
	v.Text = fmt.Sprintf("%s: %s to %s, last %s", what, show(low), show(high), show(values[last]))
	if low == high {
		v.Text = fmt.Sprintf("%s: %s", what, show(low))
	}
	// The lines keep clear of the edges, and what does not change is in the middle.
	const edge = 3
	at := func(i int) point {
		x, y := float64(sparkWidth)/2, float64(sparkHeight)/2
		if n := len(values) - 1; n > 0 {
			x = edge + float64(i)/float64(n)*(sparkWidth-2*edge)
		}
		if high > low {
			y = sparkHeight - edge - (values[i]/2-low/2)/(high/2-low/2)*(sparkHeight-2*edge)
		}
		return point{coordinate(x), coordinate(y)}
	}
	var line []string
	end := func() {
		if len(line) > 1 {
			v.Lines = append(v.Lines, strings.Join(line, " "))
		} else if len(line) == 1 {
			v.Lines = append(v.Lines, line[0]+" "+line[0])
		}
		line = nil
	}
	for i, f := range values {
		if !finite(f) {
			end()
			continue
		}
		p := at(i)
		line = append(line, p.X+","+p.Y)
	}
	end()
	p := at(last)
	v.Last = &p
	return v
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func coordinate(f float64) string { return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) }

// fewer returns at most n values: of each neighbourhood the highest.
func fewer(values []float64, n int) []float64 {
	if len(values) <= n {
		return values
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = math.NaN()
		for _, f := range values[i*len(values)/n : (i+1)*len(values)/n] {
			if finite(f) && !(out[i] >= f) {
				out[i] = f
			}
		}
	}
	return out
}
