package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"weft/cmd/internal/cli"
)

// table prints rows in columns. The caller has removed control characters from texts that
// devices send.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = cli.Dash(row[i])
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

func when(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}
