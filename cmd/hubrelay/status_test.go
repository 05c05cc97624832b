package main

import (
	"testing"
	"time"
)

func TestDurationsHaveTwoUnits(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 3*time.Hour + 5*time.Minute: "3h5m", 167 * time.Hour: "6d23h",
	} {
		if got := howLong(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}
