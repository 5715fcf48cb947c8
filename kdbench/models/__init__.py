"""Any timm model seen as four stages, a pooled feature and logits; resuming it from a stage."""
