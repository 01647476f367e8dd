"""areaDetector's interface to file plugins: records on PVA channels that control a writer."""
