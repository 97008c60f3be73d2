package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"gopkg.in/yaml.v3"
)

// Reads JSON texts, each a YAML document with the key k; writes for each the type and the value that yaml.v3 reads.
func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	dec := json.NewDecoder(in)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for {
		var text string
		if err := dec.Decode(&text); err != nil {
			return
		}
		var v map[string]interface{}
		err := yaml.Unmarshal([]byte(text), &v)
		if err != nil {
			out.Encode([]interface{}{"error", err.Error()})
			continue
		}
		x := v["k"]
		switch t := x.(type) {
		case time.Time:
			out.Encode([]interface{}{"time", t.String()})
		case nil:
			out.Encode([]interface{}{"null", nil})
		default:
			out.Encode([]interface{}{fmt.Sprintf("%T", t), fmt.Sprintf("%v", t)})
		}
	}
}
