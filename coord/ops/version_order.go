package ops

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// CompareVersions compares versions by their numbers: 1.10 is newer than 1.9, and 1.2.0-rc1 is
// older than 1.2.0. A version without numbers ("dev") is older than all others.
func CompareVersions(a, b string) int {
	an, apre := versionNumbers(a)
	bn, bpre := versionNumbers(b)
	if c := slices.Compare(an, bn); c != 0 {
		return c
	}
	switch {
	case apre == bpre:
		return 0
	case apre == "":
		return 1
	case bpre == "":
		return -1
	}
	return cmp.Compare(apre, bpre)
}

func versionNumbers(s string) (numbers []int, pre string) {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "+")
	s, pre, _ = strings.Cut(s, "-")
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, ""
		}
		numbers = append(numbers, n)
	}
	for len(numbers) > 0 && numbers[len(numbers)-1] == 0 {
		numbers = numbers[:len(numbers)-1]
	}
	return append(numbers, 0), pre
}
