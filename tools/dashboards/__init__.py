"""The dashboards of Grafana as code; `make dashboards` writes `deploy/grafana/dashboards`."""
