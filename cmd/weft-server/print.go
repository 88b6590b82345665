package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"weft/cmd/internal/cli"
)

// table lays rows out in columns. The caller has removed control characters from texts that
// devices send.
func table(rows [][]string) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = cli.Dash(row[i])
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush() // a strings.Builder does not fail
	return b.String()
}

func when(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}
